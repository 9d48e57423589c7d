"""The backbones as the authors train them on images of 32 px: a gentler stem, a pooling less."""

from collections import OrderedDict
from typing import Any

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmdet.registry import MODELS
from torch import nn

from ..backbones import HoyerResNet, HoyerVGG
from ..backbones.blocks import ACT_CFG, NORM_CFG, build_activation, spread_biases


@MODELS.register_module()
class HoyerVGGCIFAR(HoyerVGG):
    """``HoyerVGG`` without the pooling of its last stage: 2x2 features of a CIFAR image.

    All weights fit ``HoyerVGG``. Arguments are those of ``HoyerVGG``, without the SSD tail.
    """

    def __init__(self, depth: int = 16, **kwargs: Any) -> None:
        if kwargs.get('ssd_tail'):
            raise ValueError('HoyerVGGCIFAR: ssd_tail belongs to HoyerVGG')
        super().__init__(depth, **kwargs)
        self.out_strides = tuple(
            16 if index == 4 else stride
            for index, stride in zip(self.out_indices, self.out_strides, strict=True)
        )

    def _pool(self, stage: int, ceil_mode: bool, act_cfg: dict[str, Any]) -> nn.Module | None:
        return None if stage == 4 else super()._pool(stage, ceil_mode, act_cfg)


@MODELS.register_module()
class HoyerResNetCIFAR(HoyerResNet):
    """``HoyerResNet`` whose stem is three 3x3 convolutions of stride 1, then max pooling and norm.

    Neurons stand between the convolutions. Strides of the feature maps are half of those of
    ``HoyerResNet``. All weights but the stem's fit ``HoyerResNet``, whose arguments it takes, except
    those of the stem (``stem_channels`` and ``deep_stem``).
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        base_channels: int = 64,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] = NORM_CFG,
        act_cfg: dict[str, Any] = ACT_CFG,
        bias_spread: float = 0.0,
        **kwargs: Any,
    ) -> None:
        cfgs = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        super().__init__(
            depth,
            in_channels,
            base_channels=base_channels,
            bias_spread=bias_spread,
            **cfgs,
            **kwargs,
        )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        widths = (in_channels, *[base_channels] * 3)
        for number in range(3):
            layers[f'conv{number + 1}'] = build_conv_layer(
                conv_cfg, *widths[number : number + 2], 3, padding=1, bias=False
            )
            if number < 2:
                layers[f'norm{number + 1}'] = build_norm_layer(norm_cfg, base_channels)[1]
                layers[f'act{number + 1}'] = build_activation(act_cfg, base_channels)
        layers['pool'] = nn.MaxPool2d(3, stride=2, padding=1)
        layers['norm'] = build_norm_layer(norm_cfg, base_channels)[1]
        self.stem = nn.Sequential(layers)
        spread_biases(self.stem, bias_spread)
        self.out_strides = tuple(stride // 2 for stride in self.out_strides)
        self._freeze_stages()
