"""Blocks of a VGG joined by a real-valued stream, without a parameter more."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import ACT_CFG, SpikingConvBlock, build_max_pool

# What blocks hand on: the spikes that the next convolution reads, and the potential they came from.
Stream = tuple[Tensor, Tensor]


def check_switches(owner: str, **switches: bool) -> None:
    """Make sure that switches are True or False: a word, such as a misspelt True, would count as True.

    Raises:
        ValueError: If one is neither.
    """
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ValueError(f'{owner}: {name} must be True or False, got {value!r}')


def split_stream(
    owner: str, inputs: tuple[Tensor, ...], levels: int, shortcut: bool
) -> tuple[list[Tensor], Tensor | Stream]:
    """Take apart what a backbone hands to a neck.

    Args:
        owner: Name of the neck, for the message.
        inputs: Spikes of the levels, and with ``shortcut`` the potential of the last of them, or not.
        levels: Number of levels.
        shortcut: Whether the neck carries a stream on.

    Returns:
        The spikes of the levels, and what the neck goes on from: the last level, with its potential if it
        was handed in.

    Raises:
        ValueError: If there are more or fewer feature maps.
    """
    if not levels <= len(inputs) <= levels + shortcut:
        stream = ', with or without a stream' if shortcut else ''
        raise ValueError(
            f'{owner}: in_channels names {levels} levels{stream}, the backbone hands in {len(inputs)} '
            'feature maps'
        )
    return list(inputs[:levels]), inputs[-1] if len(inputs) == levels else tuple(inputs[-2:])


class Shortcut(nn.Module):
    """Brings the real-valued stream to the shape that a block's own potential has; no parameters.

    Where the block has a smaller resolution, the stream is max-pooled: by the block's own pooling, or
    beside a convolution of stride ``s`` whose kernel reaches ``d`` positions beyond its padding, over
    ``s + d`` positions. More channels repeat those there are; fewer are the means of consecutive ones
    (repeated to the next multiple where they cannot be shared out evenly).

    Args:
        conv: Convolution of the block.
        pool: Its pooling, if there is one.
        act_cfg: Config of the network's activations.

    Raises:
        ValueError: If the convolution pads more than its kernel reaches.
    """

    def __init__(
        self, conv: nn.Conv2d, pool: nn.MaxPool2d | None, act_cfg: dict[str, Any] = ACT_CFG
    ) -> None:
        super().__init__()
        beyond = [
            d * (k - 1) - 2 * p
            for k, p, d in zip(conv.kernel_size, conv.padding, conv.dilation, strict=True)
        ]
        if min(beyond) < 0:
            raise ValueError(
                f'shortcut: a convolution of kernel {conv.kernel_size} and padding {conv.padding} makes '
                'features larger, which no shortcut can follow'
            )
        self.channels = conv.out_channels
        self.pools = nn.Sequential()
        window = tuple(s + b for s, b in zip(conv.stride, beyond, strict=True))
        if max(window) > 1:
            # Rounded up, as the strided convolution beside it rounds.
            self.pools.append(build_max_pool(act_cfg, window, conv.stride, ceil_mode=True))
        if pool is not None and pool.stride not in (1, (1, 1)):
            self.pools.append(copy.deepcopy(pool))

    def forward(self, stream: Tensor) -> Tensor:
        """Return a stream (N, C, H, W) in the shape of the block's output."""
        stream = self.pools(stream)
        channels = stream.size(1)
        if channels == self.channels:
            return stream
        group = -(-channels // self.channels)
        wanted = group * self.channels
        if wanted > channels:
            stream = torch.cat([stream] * -(-wanted // channels), 1)[:, :wanted]
        return stream if group == 1 else stream.unflatten(1, (-1, group)).mean(2)

    def extra_repr(self) -> str:
        """Name the channels."""
        return f'channels={self.channels}'


class ShortcutConvBlock(SpikingConvBlock):
    """Convolution -> [pooling] -> norm -> plus the potential of the block before -> activation.

    The convolution reads spikes alone; the sum of potentials goes past it from block to block, so that
    a layer adds to what is known instead of passing it through one bit. The shortcut stands around a
    single convolution, as in Bi-Real Net (Liu et al., arXiv 1808.00278) and in
    :class:`~hoyer_det.backbones.resnet.SpikingBasicBlock`.

    Arguments and the names of parameters are those of :class:`SpikingConvBlock`, so weights of a
    network without shortcuts fit.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        act_cfg = kwargs.get('act_cfg', ACT_CFG)
        self.shortcut = Shortcut(self.conv, getattr(self, 'pool', None), act_cfg)

    def forward(self, x: Tensor | Stream) -> Stream:
        """Return the spikes and the potential.

        Args:
            x: Spikes and potential of the block before; spikes or images alone begin a stream.
        """
        x, stream = (x, None) if isinstance(x, Tensor) else x
        x = self.conv(x)
        if hasattr(self, 'pool'):
            x = self.pool(x)
        if hasattr(self, 'norm'):
            x = self.norm(x)
        if stream is not None:
            x = x + self.shortcut(stream)
        return self.act(x), x
