"""Rounds the weights of convolutions, each output channel in steps of its own."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..backbones import HoyerResNet
from ..backbones.resnet import SpikingBasicBlock
from ..necks import HoyerFPN
from .reads import Reading

BITS = range(2, 9)  # of a weight
INT16 = 32767  # largest sum of the positive weights, and of the negative ones without sign
_EXACT = 24  # integers up to 2**24 are exact in float32


def largest_weight(bits: int) -> int:
    """Return the largest integer weight of so many bits."""
    return 2 ** (bits - 1) - 1


def integer_steps(
    weight: Tensor, largest: int | Tensor, most: int | None = 1
) -> tuple[Tensor, Tensor]:
    """Round weights to integers.

    Args:
        weight: float64 (M, C, kh, kw).
        largest: Largest absolute value of an integer, for all channels or float64 (M,).
        most: Largest value that the convolution reads. No sum leaves int16, whatever it reads from 0 to
            that; None for no such bound.

    Returns:
        The integers, float64, and the step of each output channel, float64 (M,); 1 for a channel of
        zeros.
    """
    flat = weight.flatten(1)
    step = flat.abs().amax(1) / largest
    if most is not None:
        step = torch.maximum(step, _sides(flat) / (INT16 // most))
    step = torch.where(step > 0, step, 1.0)
    while True:
        # No integer is larger than `largest`: the step of the largest weight is at least its share.
        rounded = (flat / step[:, None]).round()
        if most is None:
            break
        over = _sides(rounded) > INT16 // most
        if not over.any():
            break
        step = torch.where(over, step * 1.001, step)  # rounding has added up
    return rounded.view_as(weight), step


def _sides(flat: Tensor) -> Tensor:
    """Return the larger of the sum of positive weights and that of negative ones without sign, (M,)."""
    return torch.maximum(flat.clamp(min=0).sum(1), -flat.clamp(max=0).sum(1))


@torch.no_grad()
def round_weights(
    conv: nn.Conv2d, largest: int | Tensor, grid: Tensor | None = None, most: int | None = None
) -> None:
    """Round the weights of a convolution whose sums are read as real values, in place.

    The buffer ``steps`` (M,) is added, by which an exporter finds the integers again.

    Args:
        conv: The convolution.
        largest: Largest absolute value of an integer, for all channels or float64 (M,).
        grid: The steps and the bias become multiples of this, float64 (M,), a power of 2 for each channel.
        most: As for :func:`integer_steps`: engines that add up integers need no wider sums then.
    """
    weight = conv.weight.double()
    integers, step = integer_steps(weight, largest, most)
    if grid is None:
        step = step.float().double()
    else:
        # Not rounded anew: of a channel of small weights the step is few multiples of the grid.
        step = grid * (step / grid).round().clamp(min=1)
        if conv.bias is not None:
            conv.bias.copy_(grid * (conv.bias.double() / grid).round())
    conv.weight.copy_(integers * step.view(-1, 1, 1, 1))
    conv.register_buffer('steps', step.float(), persistent=False)


class Stream(NamedTuple):
    """Convolutions whose outputs are added to one another.

    Attributes:
        owner: ``HoyerResNet`` or ``HoyerFPN``.
        convs: The convolutions.
        copied: Whether their outputs are only copied, scaled by a sign, or pooled on the way.
    """

    owner: nn.Module
    convs: list[nn.Conv2d]
    copied: bool = True


def streams(model: nn.Module) -> list[Stream]:
    """Return the real-valued streams of HoyerResNet and HoyerFPN."""
    found: list[Stream] = []
    for module in model.modules():
        if isinstance(module, HoyerResNet):
            stem = module.stem
            found.append(Stream(module, [stem.conv if hasattr(stem, 'conv') else stem.conv3]))
            for block in (block for stage in module.stages for block in stage):
                if not isinstance(block.shortcut, nn.Identity):
                    found.append(Stream(module, [block.shortcut.conv]))
                basic = isinstance(block, SpikingBasicBlock)
                found[-1].convs.append(block.conv if basic else block.conv3)
        elif isinstance(module, HoyerFPN):
            copied = module.upsample_cfg.get('mode') == 'nearest'
            found.append(Stream(module, [lateral.conv for lateral in module.lateral_convs], copied))
    return found


def stream_grid(convs: list[nn.Conv2d], readings: list[Reading]) -> Tensor:
    """Return a power of 2 for each channel, float64 (M,), in multiples of which float32 sums are exact.

    If weights and biases are multiples of it, every partial sum of all these convolutions, whatever
    spikes they read, is an integer of at most 24 bits times it. So no order of summation rounds.

    Args:
        convs: Convolutions whose outputs are added up, with norms folded.
        readings: What each reads.
    """
    bound = torch.zeros(convs[0].out_channels, dtype=torch.float64)
    for conv, reading in zip(convs, readings, strict=True):
        bound += reading.most * conv.weight.detach().double().flatten(1).abs().sum(1)
        if conv.bias is not None:
            bound += conv.bias.detach().double().abs()
    # One bit is left for what rounding adds.
    return torch.exp2(bound.clamp(min=1e-30).log2().ceil() - (_EXACT - 1))
