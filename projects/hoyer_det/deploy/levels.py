"""The neuron of a folded network: it compares, and nothing else."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..detectors.per_call import SpikePerCall
from ..spiking import HoyerSpike

# Beyond every sum of spikes, whose absolute value is at most 32768.
UNREACHED = 40000
LARGEST = float(torch.finfo(torch.float32).max)
FIRE = 'hoyer_det::Fire'


class FiringLevel(nn.Module):
    """Fires where its input reaches a level, or where it does not.

    Args:
        level: Level of each channel (C,), or (1,) for all.
        invert: Whether a channel fires below its level instead, (C,) or (1,), bool.
        integer: Whether it reads the sums of a convolution of integer weights, and levels are integers.
        exact: Whether every float32 engine computes the same input; else it may differ by rounding.

    Attributes:
        key: Name in an exported file.

    Shape:
        Input (N, C, ...), output the same shape and type with entries 0 and 1.

    Example:
        >>> neuron = FiringLevel(torch.tensor([2.0]), torch.tensor([False]))
        >>> neuron(torch.tensor([[[[1.0, 2.0]]]]))
        tensor([[[[0., 1.]]]])
    """

    def __init__(
        self, level: Tensor, invert: Tensor, integer: bool = False, exact: bool = False
    ) -> None:
        super().__init__()
        self.register_buffer('level', level)
        self.register_buffer('invert', invert)
        self.integer = integer
        self.exact = integer or exact
        self.key = ''

    def forward(self, x: Tensor) -> Tensor:
        """Turn sums or potentials into spikes."""
        shape = -1, *[1] * (x.dim() - 2)
        level, invert = self.level.view(shape), self.invert.view(shape)
        if torch.onnx.is_in_onnx_export():
            return torch.onnx.ops.symbolic(
                FIRE,
                (x, level, invert),
                dict(integer=int(self.integer), key=self.key),
                dtype=x.dtype,
                shape=x.shape,
                version=1,
            )
        return ((x >= level) ^ invert).to(x.dtype)

    def extra_repr(self) -> str:
        """Describe the neuron."""
        kind = 'integer' if self.integer else 'real'
        return f'{self.level.numel()} levels, {kind}, {int(self.invert.sum())} inverted'


def replace_neurons(
    act: nn.Module, make: Callable[[HoyerSpike], FiringLevel]
) -> FiringLevel | SpikePerCall:
    """Return what stands in for a neuron, or put it into a row of neurons for several applications."""
    if isinstance(act, SpikePerCall):
        for index, neuron in enumerate(act):
            act[index] = make(neuron)
        return act
    return make(act)


def firing_potential(neuron: HoyerSpike, scale: Tensor, shift: Tensor) -> Tensor:
    r"""Return :math:`\theta`, at which :math:`a \theta + b` is the firing level of a neuron.

    Args:
        neuron: Neuron in evaluation.
        scale: :math:`a` of the norm before it, float64 (C,), or (1,) with 1 where there is none.
        shift: :math:`b`, the same shape.

    Returns:
        float64 (C,); for a channel of scale 0, minus or plus infinity if it always or never fires.
    """
    extremum = neuron.average_extremum().double()
    level = neuron.extremum_scale * neuron.threshold.detach().double().abs() * extremum
    ends = torch.where(shift >= level, -torch.inf, torch.inf)
    return torch.where(scale == 0, ends, (level - shift) / scale)


def integer_level(theta: Tensor, negative: Tensor, limit: int = UNREACHED) -> FiringLevel:
    r"""Make the neuron on integer sums.

    A channel of positive scale fires where the sum reaches :math:`\lceil\theta\rceil`. One of negative
    scale fires where it is at most :math:`\theta`, which is where it does not reach
    :math:`\lfloor\theta\rfloor + 1`.

    Args:
        theta: Level in units of the sums, float64 (C,).
        negative: Which channels have a negative scale, (C,).
        limit: No sum is as large as this; levels are cut off there.
    """
    level = torch.where(negative, theta.floor() + 1, theta.ceil()).clamp(-limit, limit)
    return FiringLevel(level.float(), negative, integer=True)


def real_level(theta: Tensor, negative: Tensor, exact: bool = False) -> FiringLevel:
    r"""Make the neuron on real values of float32.

    The level is the least float32 that is not below :math:`\theta`, or for a negative scale the least
    above it.

    Args:
        theta: Level, float64 (C,).
        negative: Which channels have a negative scale, (C,).
        exact: As for :class:`FiringLevel`.
    """
    level = theta.clamp(-LARGEST, LARGEST).float()
    below = level.double() < theta
    short = torch.where(negative, below | (level.double() == theta), below)
    upwards = torch.nextafter(level, torch.full_like(level, torch.inf))
    return FiringLevel(
        torch.where(short, upwards, level).clamp(-LARGEST, LARGEST), negative, exact=exact
    )
