"""What makes spikes resemble the ReLU of their potentials: thresholds, scales, the next kernels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..spiking import HoyerSpike
from ..spiking.neuron import hoyer_spike

_SAMPLE = 1_000_000  # potentials of a layer that are looked at
_POSITIONS = 20_000  # positions of a channel


def samples(x: Tensor) -> Tensor:
    """Return evenly spaced values of each channel of (N, C, ...) as (C, P), in float32."""
    x = x.transpose(0, 1).flatten(1)
    return x[:, :: 1 + x.size(1) // _POSITIONS].float()


@torch.no_grad()
def best_threshold(layer: HoyerSpike, potential: Tensor, candidates: int) -> Tensor | None:
    r"""Return the threshold whose spikes resemble the ReLU of the potential most.

    That is the largest cosine of the angle between :math:`\max(u, 0)` and :math:`o`. For a normal
    potential around 0 it makes 27 % of the neurons fire.

    Args:
        layer: The neuron; its threshold is left changed.
        potential: Its input, (N, C, ...).
        candidates: Number of quantiles of the positive potentials that are tried.

    Returns:
        A scalar, None if no potential is positive.
    """
    potential = potential.float()
    relu = potential.clamp(min=0)
    positive = relu[relu > 0]
    if not positive.numel():
        return None
    sample = positive[:: 1 + positive.numel() // _SAMPLE]
    levels = torch.linspace(0, 1, candidates + 1, device=sample.device)[1:]
    best, best_score = None, -1.0
    for threshold in torch.quantile(sample, levels):
        layer.threshold.data.fill_(threshold)
        spikes = hoyer_spike(potential, layer.threshold.data, layer)[0]
        # Squared cosine but for a factor that all candidates share.
        score = float((relu * spikes).sum().square() / spikes.sum().clamp(min=1))
        if score > best_score:
            best, best_score = threshold, score
    return best


@torch.no_grad()
def best_channel_scales(layer: HoyerSpike, potential: Tensor, candidates: int) -> Tensor:
    r"""Return the scale :math:`k` of each channel at which the spikes of ``u / k`` follow the ReLU best.

    The threshold is 1. The measure is the correlation of the two, squared.

    Args:
        layer: The neuron, with an extremum for each channel or a fixed level; its threshold becomes 1.
        potential: Samples of its potential, (C, P).
        candidates: Number of scales tried, even steps up to the 99.9 % quantile of the ReLU.

    Returns:
        Scales (C,), positive; 1 for a channel that never is.
    """
    relu = potential.clamp(min=0)
    top = relu.kthvalue(max(1, round(0.999 * relu.size(1))), dim=1).values
    top = torch.where(top > 0, top, relu.amax(1))
    best = torch.full_like(top, -1.0)
    scales = torch.ones_like(top)
    layer.threshold.data.fill_(1.0)
    for step in range(1, candidates + 1):
        scale = torch.where(top > 0, top * step / candidates, 1.0)
        unit = (potential / scale[:, None])[None]
        spikes = hoyer_spike(unit, layer.threshold.data, layer)[0][0]
        rate = spikes.mean(1)
        covariance = (spikes * relu).mean(1) - rate * relu.mean(1)
        score = covariance.square() / (rate * (1 - rate)).clamp(min=1e-6)
        better = (score > best) & (top > 0)
        best = torch.where(better, score, best)
        scales = torch.where(better, scale, scales)
    return scales


@torch.no_grad()
def match_inputs(
    conv: nn.Conv2d, spikes: Tensor, target: Tensor, average: Callable[[Tensor], Tensor]
) -> None:
    """Scale the kernels of a convolution so that what it reads weighs what they were trained on.

    Each input channel then has the standard deviation of its target, and by the bias, if there is one,
    its mean. A channel that does not vary is left alone.

    Args:
        conv: Convolution; weight and bias are changed.
        spikes: Samples of what it reads, (C, P).
        target: Samples of what it read before, at the same places.
        average: Averages a tensor over processes, in place, and returns it.
    """
    spread, wanted = spikes.std(1), target.std(1)
    scale = torch.where((spread > 1e-3) & (wanted > 0), wanted / spread.clamp(min=1e-3), 1.0)
    scale = average(scale)
    shift = average(target.mean(1) - scale * spikes.mean(1))
    by_group = conv.weight.unflatten(0, (conv.groups, -1))  # (groups, out, in, kernel)
    if conv.bias is not None:
        per_channel = by_group.flatten(3).sum(3)  # (groups, out, in)
        conv.bias.add_((per_channel * shift.view(conv.groups, 1, -1)).sum(2).flatten())
    by_group.mul_(scale.view(conv.groups, 1, -1, 1, 1))
