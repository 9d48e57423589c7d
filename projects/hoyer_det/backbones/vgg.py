"""VGG with Hoyer spikes."""

from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from .blocks import (
    ACT_CFG,
    NORM_CFG,
    SpikingConvBlock,
    build_max_pool,
    check_indices,
    checkpointed,
    evaluate_norms,
    freeze,
)
from .shortcut import ShortcutConvBlock, check_switches

_STAGE_CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_STAGE_CHANNELS = (64, 128, 256, 512, 512)
_TAIL_CHANNELS = 1024


@MODELS.register_module()
class HoyerVGG(BaseModule):
    """VGG of blocks convolution -> [max pooling] -> batch norm -> ``HoyerSpike``.

    The first convolution sees the image; every other one reads spikes. Source of the structure:
    arXiv 2212.10170 and its authors' classifiers (pooling right after the last convolution of a
    stage, before batch norm and spike). With ``shortcut`` the potential of each block is added to that
    of the next, without parameters: :class:`~hoyer_det.backbones.shortcut.ShortcutConvBlock`.

    Stage ``i`` (0 to 4) ends with its pooling, so its feature map has stride ``2**(i + 1)``. With
    ``ssd_tail`` the network is the one of SSD (Liu et al., arXiv 1512.02325): stage 3
    hands out conv4_3 at stride 8 and its spikes are pooled afterwards (the maximum of spikes is a
    spike), the pooling of stage 4 becomes 3x3 with stride 1, and a sixth stage follows with fc6
    (3x3, dilation 6) and fc7 (1x1) as convolutions, stride 16.

    Args:
        depth: 11, 13, 16 or 19.
        width: Multiplies every number of channels; results are rounded to integers.
        in_channels: Channels of the image.
        out_indices: Stages whose spikes are returned, ascending. Default: ``(3, 5)`` with the SSD
            tail, else ``(1, 2, 3, 4)``.
        ssd_tail: Whether to build the SSD tail described above.
        ceil_mode: Rounding of the 2x2 pooling; SSD300 needs True for its 38x38 map.
        shortcut: Whether a real-valued stream goes past every convolution but the first.
        out_stream: Whether the stream of the last stage follows its spikes as one feature map more, for
            a neck that carries it on (``HoyerSSDNeck``). Without it, features are spikes alone.
        frozen_stages: Number of leading stages that are not trained (norm and neuron in evaluation
            mode, no gradients); -1 for none. Frozen neurons need a checkpoint to fire by.
        norm_eval: Whether batch norm stays in evaluation mode during training.
        with_cp: Whether to trade time for memory by (non-reentrant) gradient checkpointing, one
            segment per stage.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the norm.
        act_cfg: Config of the activation; ``dict(type='ReLU')`` gives the twin.
        bias_spread: Half width of the interval of the norms' first biases, see
            :class:`SpikingConvBlock`.
        init_cfg: Initialisation; Kaiming for convolutions by default.

    Attributes:
        out_channels: Channels of each stage's feature map.
        out_strides: Its stride.

    Raises:
        ValueError: If depth, width, out_indices or frozen_stages are out of range, or a stream is to be
            handed out where there is none.

    Example:
        >>> backbone = HoyerVGG(16, ssd_tail=True, ceil_mode=True)
        >>> [tuple(f.shape) for f in backbone(torch.rand(2, 3, 300, 300))]
        [(2, 512, 38, 38), (2, 1024, 19, 19)]
    """

    def __init__(
        self,
        depth: int = 16,
        width: float = 1.0,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        ssd_tail: bool = False,
        ceil_mode: bool = False,
        shortcut: bool = False,
        out_stream: bool = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = NORM_CFG,
        act_cfg: dict[str, Any] = ACT_CFG,
        bias_spread: float = 0.0,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        if init_cfg is None:
            # Norms start at 1 and at their spread biases by themselves.
            init_cfg = dict(type='Kaiming', layer='Conv2d')
        super().__init__(init_cfg)
        if depth not in _STAGE_CONVS:
            raise ValueError(f'HoyerVGG: depth must be one of {tuple(_STAGE_CONVS)}, got {depth!r}')
        if not width > 0 or round(64 * width) < 1:
            raise ValueError(f'HoyerVGG: width must leave at least one channel, got {width}')
        check_switches(
            'HoyerVGG',
            ssd_tail=ssd_tail,
            ceil_mode=ceil_mode,
            shortcut=shortcut,
            out_stream=out_stream,
        )
        num_stages = 6 if ssd_tail else 5
        if not -1 <= frozen_stages <= num_stages:
            raise ValueError(
                f'HoyerVGG: frozen_stages must lie between -1 and {num_stages}, got {frozen_stages}'
            )
        if out_stream and not shortcut:
            raise ValueError('HoyerVGG: out_stream=True needs shortcut=True; there is no stream')
        if out_indices is None:
            out_indices = (3, 5) if ssd_tail else (1, 2, 3, 4)
        self.out_indices = check_indices('HoyerVGG', out_indices, num_stages)
        self.ssd_tail = ssd_tail
        self.shortcut = shortcut
        self.out_stream = out_stream
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp

        cfgs = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg, bias_spread=bias_spread)
        block = ShortcutConvBlock if shortcut else SpikingConvBlock
        channels = [round(c * width) for c in _STAGE_CHANNELS]
        strides = [2, 4, 8, 8, 16, 16] if ssd_tail else [2, 4, 8, 16, 32]
        self.stages = nn.ModuleList()
        # Nothing behind the last feature map: weights without gradient stop DistributedDataParallel.
        for index, convs in enumerate(_STAGE_CONVS[depth][: self.out_indices[-1] + 1]):
            pool = self._pool(index, ceil_mode, act_cfg)
            blocks = [
                block(
                    in_channels if conv == 0 else channels[index],
                    channels[index],
                    3,
                    padding=1,
                    pool=pool if conv == convs - 1 else None,
                    reads_spikes=index + conv > 0,
                    **cfgs,
                )
                for conv in range(convs)
            ]
            self.stages.append(nn.Sequential(*blocks))
            in_channels = channels[index]
        if ssd_tail and self.out_indices[-1] == 5:
            channels.append(round(_TAIL_CHANNELS * width))
            fc6 = block(
                in_channels, channels[5], 3, padding=6, dilation=6, reads_spikes=True, **cfgs
            )
            fc7 = block(channels[5], channels[5], 1, reads_spikes=True, **cfgs)
            self.stages.append(nn.Sequential(fc6, fc7))
        if ssd_tail:
            self.pool4 = build_max_pool(act_cfg, 2, 2, ceil_mode=ceil_mode)
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        self.out_strides = tuple(strides[i] for i in self.out_indices)
        self._freeze_stages()

    def _pool(self, stage: int, ceil_mode: bool, act_cfg: dict[str, Any]) -> nn.Module | None:
        if self.ssd_tail and stage == 3:
            return None
        if self.ssd_tail and stage == 4:
            return build_max_pool(act_cfg, 3, stride=1, padding=1)
        return build_max_pool(act_cfg, 2, 2, ceil_mode=ceil_mode)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the spikes of the stages in ``out_indices`` for images (N, in_channels, H, W).

        With ``out_stream`` a last tensor has the shape of the last spikes and holds their potential.
        """
        outs = []
        for index, stage in enumerate(self.stages):
            x = checkpointed(stage, x) if self.with_cp else stage(x)
            if index in self.out_indices:
                outs.append(x[0] if self.shortcut else x)
            if self.out_stream and index == self.out_indices[-1]:
                outs.append(x[1])
            if self.ssd_tail and index == 3:
                x = tuple(map(self.pool4, x)) if self.shortcut else self.pool4(x)
        return tuple(outs)

    def train(self, mode: bool = True) -> 'HoyerVGG':
        """Switch the mode, leaving frozen stages and frozen norms in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            evaluate_norms(self)
        return self

    def _freeze_stages(self) -> None:
        for stage in self.stages[: max(self.frozen_stages, 0)]:
            freeze(stage)
