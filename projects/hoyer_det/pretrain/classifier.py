"""An image classifier on a spiking backbone."""

from collections.abc import Sequence
from typing import Any, Literal

from mmdet.registry import MODELS
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.blocks import build_activation


@MODELS.register_module()
class SpikingReadout(BaseModule):
    """Pooling -> [neuron] -> (linear -> neuron -> dropout) for hidden layers -> linear.

    With the defaults it is the mean of the last feature map over space and one linear layer. The
    authors' classifiers (arXiv 2212.10170) are special cases: VGG has two hidden layers of 4096 without
    biases, ResNet pools the real-valued stream and puts a neuron behind (``input_act``).

    Args:
        in_channels: Channels C of the feature map.
        num_classes: Number of classes.
        pool_size: Side of the map (``AdaptiveAvgPool2d``) that is flattened into the first layer.
        hidden: Widths of the hidden layers.
        input_act: Whether a neuron stands behind the pooling; for backbones whose output is real.
        dropout: Share of the entries that are zeroed behind each neuron (and the pooling).
        bias: Whether the linear layers have biases.
        act_cfg: Config of the neurons.
        init_cfg: Initialisation; normal of deviation 0.01 for linear layers by default.

    Raises:
        ValueError: If the dropout is not in [0, 1).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        pool_size: int = 1,
        hidden: Sequence[int] = (),
        input_act: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        act_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='Normal', layer='Linear', std=0.01))
        if not 0 <= dropout < 1:
            raise ValueError(f'SpikingReadout: dropout must lie in [0, 1), got {dropout}')
        act_cfg = act_cfg or dict(type='HoyerSpike')
        widths = (in_channels * pool_size**2, *hidden, num_classes)
        self.pool = nn.AdaptiveAvgPool2d(pool_size)
        self.dropout = nn.Dropout(dropout)
        self.input_act = build_activation(act_cfg, widths[0]) if input_act else nn.Identity()
        self.acts = nn.ModuleList(build_activation(act_cfg, width) for width in hidden)
        self.fcs = nn.ModuleList(
            nn.Linear(*pair, bias=bias) for pair in zip(widths, widths[1:], strict=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Turn a feature map (N, C, H, W) into logits (N, num_classes)."""
        x = self.dropout(self.input_act(self.pool(features).flatten(1)))
        for layer, act in zip(self.fcs, self.acts, strict=False):
            x = self.dropout(act(layer(x)))
        return self.fcs[-1](x)


@MODELS.register_module()
class SpikingClassifier(BaseModel):
    """Image classifier: a registered backbone, whose last feature map a read-out turns into logits.

    Its checkpoint keeps the backbone under ``backbone.``, where a detector's ``init_cfg`` finds it:
    ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.

    Args:
        backbone: Config of the backbone.
        head: Config of the read-out; ``in_channels`` is filled in.
        data_preprocessor: Config of the data preprocessor.
        init_cfg: Initialisation.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        head: dict[str, Any],
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = MODELS.build(dict(in_channels=self.backbone.out_channels[-1], **head))

    def forward(
        self,
        inputs: Tensor,
        data_samples: Tensor | None = None,
        mode: Literal['tensor', 'loss', 'predict'] = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[Tensor]:
        """Classify images.

        Args:
            inputs: Images (N, 3, H, W), normalised.
            data_samples: Classes (N,), for ``mode='loss'``; the name is mmengine's.
            mode: ``'tensor'``: logits (N, classes). ``'loss'``: the cross entropy under ``loss``.
                ``'predict'``: a list of N rows of logits, as an evaluator takes them.
        """
        logits = self.head(self.backbone(inputs)[-1])
        if mode == 'loss':
            return dict(loss=F.cross_entropy(logits, data_samples))
        return list(logits) if mode == 'predict' else logits
