"""The leaky integrate-and-fire neuron over several time steps, for comparison."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Fire(torch.autograd.Function):
    r""":math:`[x \ge 0]`, with the derivative of :math:`\arctan(\pi x) / \pi + 1/2`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad / (1 + (math.pi * x) ** 2)


class LIFSpike(nn.Module):
    r"""Leaky integrate-and-fire over several time steps.

    The membrane potential of time step ``t`` follows from that of the step before; a neuron that fires is
    set back to 0:

    .. math:: v_t = v_{t-1} (1 - o_{t-1}) + (x_t - v_{t-1} (1 - o_{t-1})) / \tau, \quad
              o_t = [v_t \ge \theta]

    The gradient of the step is that of an arctangent, :math:`1 / (1 + \pi^2 (v - \theta)^2)`, and none goes
    through the resetting. These are the defaults of ``LIFNode`` of SpikingJelly (Fang et al., Science
    Advances 2023) with ``ATan`` and ``detach_reset``.

    Args:
        steps: Number of time steps ``T``.
        tau: Time constant in steps, above 1.
        threshold: Potential at which it fires.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, steps: int = 4, tau: float = 2.0, threshold: float = 1.0) -> None:
        super().__init__()
        if steps < 1 or not tau > 1 or not threshold > 0:
            raise ValueError(
                f'LIFSpike: needs steps >= 1, tau > 1 and threshold > 0, got {steps}, {tau:g}, {threshold:g}'
            )
        self.steps, self.tau, self.threshold = steps, tau, threshold

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes, 0 and 1.

        Args:
            x: (T * N, ...), all images of the first time step in front.

        Raises:
            ValueError: If the batch is no multiple of the number of time steps.
        """
        if x.size(0) % self.steps:
            raise ValueError(
                f'LIFSpike: {x.size(0)} inputs are no multiple of {self.steps} time steps'
            )
        v, spikes = torch.zeros_like(x[: x.size(0) // self.steps]), []
        for current in x.chunk(self.steps):
            v = v + (current - v) / self.tau
            spike = _Fire.apply(v - self.threshold)
            v = v * (1 - spike.detach())
            spikes.append(spike)
        return torch.cat(spikes)

    def extra_repr(self) -> str:
        """Name the arguments."""
        return f'steps={self.steps}, tau={self.tau:g}, threshold={self.threshold:g}'
