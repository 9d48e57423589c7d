"""The extra layers of SSD as spiking blocks."""

from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..backbones.blocks import ACT_CFG, NORM_CFG, SpikingConvBlock
from ..backbones.shortcut import ShortcutConvBlock, check_switches, split_stream


@MODELS.register_module()
class HoyerSSDNeck(BaseModule):
    """Extra feature levels of SSD, each 1x1 -> 3x3, every convolution reading spikes.

    The structure is that of SSD (Liu et al., arXiv 1512.02325). There is no
    L2 normalisation of the first level: spikes already have one scale.

    Args:
        in_channels: Channels of the levels handed in.
        out_channels: Channels of all levels handed out; begins with ``in_channels``.
        level_strides: Stride of the second convolution of each extra level.
        level_paddings: Its padding.
        last_kernel_size: Kernel of the very last convolution: 3 for SSD300, 4 for SSD512.
        shortcut: Whether a real-valued stream goes past the convolutions, as in ``HoyerVGG``. It goes on
            from the stream handed in behind the levels (``HoyerVGG(out_stream=True)``); without one, it
            begins behind the first convolution.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the norm.
        act_cfg: Config of the activation.
        bias_spread: Half width of the interval of the norms' first biases, see
            :class:`SpikingConvBlock`.
        init_cfg: Initialisation; Kaiming for convolutions by default.

    Raises:
        ValueError: If the lists do not fit each other.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        level_strides: Sequence[int],
        level_paddings: Sequence[int],
        last_kernel_size: int = 3,
        shortcut: bool = False,
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
        check_switches('HoyerSSDNeck', shortcut=shortcut)
        given = len(in_channels)
        if tuple(out_channels[:given]) != tuple(in_channels):
            raise ValueError(
                f'HoyerSSDNeck: out_channels must begin with in_channels {tuple(in_channels)}, '
                f'got {tuple(out_channels)}'
            )
        extra = len(out_channels) - given
        if extra < 1 or extra != len(level_strides) or extra != len(level_paddings):
            raise ValueError(
                f'HoyerSSDNeck: out_channels adds {extra} levels, level_strides gives '
                f'{len(level_strides)} and level_paddings {len(level_paddings)}; all must be the same '
                'and at least 1'
            )
        cfgs = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg, bias_spread=bias_spread)
        block = ShortcutConvBlock if shortcut else SpikingConvBlock
        self.shortcut = shortcut
        self.in_channels = tuple(in_channels)
        self.extra_layers = nn.ModuleList()
        for level, (stride, padding) in enumerate(zip(level_strides, level_paddings, strict=True)):
            channels = out_channels[given + level]
            kernel = last_kernel_size if level == extra - 1 else 3
            self.extra_layers.append(
                nn.Sequential(
                    block(out_channels[given + level - 1], channels // 2, 1, **cfgs),
                    block(
                        channels // 2,
                        channels,
                        kernel,
                        stride=stride,
                        padding=padding,
                        reads_spikes=True,
                        **cfgs,
                    ),
                )
            )

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the given levels followed by the extra ones.

        Args:
            inputs: Spikes of the given levels, and with ``shortcut`` the potential of the last of them.

        Raises:
            ValueError: If there are more or fewer.
        """
        levels = len(self.in_channels)
        outs, x = split_stream('HoyerSSDNeck', inputs, levels, self.shortcut)
        for layer in self.extra_layers:
            x = layer(x)
            outs.append(x[0] if self.shortcut else x)
        return tuple(outs)
