"""The neck of YOLOv3 with spikes between all its convolutions."""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmdet.models.necks import YOLOV3Neck
from mmdet.registry import MODELS
from mmengine.model import PretrainedInit
from torch import Tensor, nn

from ..backbones.blocks import (
    ACT_CFG,
    NORM_CFG,
    spiking_conv_cfg,
    spread_biases,
    use_spiking_conv_modules,
)
from ..backbones.shortcut import ShortcutConvBlock, check_switches, split_stream


@MODELS.register_module()
class HoyerYOLOV3Neck(YOLOV3Neck):
    """MMDetection's YOLOv3 neck of blocks convolution -> norm -> ``HoyerSpike``.

    What is up-sampled is copied and what is joined is concatenated, so spikes stay 0 and 1 on their
    way and every convolution reads nothing else. The network is that of YOLOv3 (Redmon and Farhadi,
    arXiv 1804.02767).

    Args:
        num_scales: Number of levels.
        in_channels: Channels of the levels handed in, from the coarsest to the finest.
        out_channels: Channels of the levels handed out, in the same order.
        shortcut: Whether a real-valued stream goes past the convolutions, as in ``HoyerVGG``. It goes on
            from the stream handed in behind the levels (``HoyerVGG(out_stream=True)``); without one, it
            begins behind the first convolution. It is up-sampled with the spikes, and what is concatenated
            does not enter it.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the norms.
        act_cfg: Config of the activations; ``dict(type='LeakyReLU', negative_slope=0.1)`` gives back
            MMDetection's neck.
        bias_spread: Half width of the interval of the norms' first biases, see
            :class:`hoyer_det.backbones.blocks.SpikingConvBlock`.
        init_cfg: Initialisation; Kaiming for convolutions by default.

    Raises:
        ValueError: If the lists have not ``num_scales`` entries, or ``shortcut`` is no bool.
    """

    def __init__(
        self,
        num_scales: int,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        shortcut: bool = False,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] = NORM_CFG,
        act_cfg: dict[str, Any] = ACT_CFG,
        bias_spread: float = 0.0,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        check_switches('HoyerYOLOV3Neck', shortcut=shortcut)
        if not num_scales == len(in_channels) == len(out_channels):
            raise ValueError(
                f'HoyerYOLOV3Neck: num_scales={num_scales} must be the number of in_channels '
                f'{tuple(in_channels)} and of out_channels {tuple(out_channels)}'
            )
        super().__init__(
            num_scales,
            list(in_channels),
            list(out_channels),
            conv_cfg=spiking_conv_cfg(conv_cfg, act_cfg),
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            init_cfg=init_cfg,
        )
        self.bias_spread = bias_spread
        self.shortcut = shortcut
        if shortcut:
            _put_shortcuts(self, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
            self.init_cfg = init_cfg or dict(type='Kaiming', layer='Conv2d')
        else:
            use_spiking_conv_modules(self)

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the levels from the coarsest to the finest.

        Args:
            feats: Spikes of the levels, from the finest to the coarsest, and with ``shortcut`` the potential
                of the coarsest.

        Raises:
            ValueError: If there are more or fewer.
        """
        levels, x = split_stream('HoyerYOLOV3Neck', feats, self.num_scales, self.shortcut)
        if not self.shortcut:
            return super().forward(feats)
        x = self.detect1(x)
        outs = [x[0]]
        for index, level in enumerate(levels[-2::-1], start=1):
            spikes, potential = map(self._upsample, getattr(self, f'conv{index}')(x))
            x = getattr(self, f'detect{index + 1}')((torch.cat((spikes, level), 1), potential))
            outs.append(x[0])
        return tuple(outs)

    def _upsample(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2)

    def init_weights(self) -> None:
        """Initialise the convolutions, then spread the norms' biases unless a checkpoint set them."""
        cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg or {}]
        keep = self.is_init or any(
            cfg.get('type') in ('Pretrained', PretrainedInit) for cfg in cfgs
        )
        super().init_weights()
        # After the layers, because `ConvModule` sets the biases of its norm to 0.
        if not keep:
            spread_biases(self, self.bias_spread)


def _put_shortcuts(neck: YOLOV3Neck, **cfgs: dict[str, Any] | None) -> None:
    """Put a block with a shortcut in the place of each ``ConvModule``."""
    for parent in list(neck.modules()):
        for name, child in parent.named_children():
            if isinstance(child, ConvModule):
                conv = child.conv
                block = ShortcutConvBlock(
                    conv.in_channels,
                    conv.out_channels,
                    conv.kernel_size,
                    padding=conv.padding,
                    **cfgs,
                )
                setattr(parent, name, block)
