"""Norm and neuron of one layer as a single differentiable function."""

from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from ..neuron import HoyerSpike


class FusedSpikeFunction(torch.autograd.Function):
    """``SpikeFunction`` in few passes over the memory, and if wanted the batch norm before it.

    With a norm its input is all that is kept for the backward pass: the potential is computed from it
    again, and the norm's own backward pass is part of this one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        threshold: Tensor,
        layer: 'HoyerSpike',
        norm: nn.BatchNorm2d | None,
        track: bool,
        passes: ModuleType,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the spikes; move the running averages of norm and neuron.

        Args:
            ctx: Autograd context.
            x: Membrane potential, or the input of the norm, shape (N, C, ...).
            weight: Weight of the norm, None without a norm.
            bias: Bias of the norm.
            threshold: Clip threshold ``v`` of the neuron, a scalar.
            layer: The neuron.
            norm: The norm.
            track: Whether the neuron's running average follows this batch.
            passes: Module that runs the passes on the device of ``x``.

        Returns:
            Spikes and Hoyer square as ``SpikeFunction``, and whether a potential was NaN or inf (0 or
            1, scalar, without gradient).
        """
        spikes, square, odd, kept = passes.forward(x, layer, norm, track)
        ctx.save_for_backward(x, weight, bias, threshold, *kept)
        ctx.surrogate = layer.surrogate_window, layer.surrogate_height
        ctx.passes = passes
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(odd)
        return spikes, square, odd

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_spikes: Tensor | None, grad_square: Tensor | None, grad_odd: None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the potential (or the norm's input), the norm, the threshold."""
        if grad_spikes is None and grad_square is None:
            return (None,) * 8
        x, weight, bias, threshold, *kept = ctx.saved_tensors
        if grad_spikes is not None and grad_spikes.stride() != x.stride():
            grad_spikes = torch.empty_like(x).copy_(grad_spikes)
        gradients = ctx.passes.backward(
            grad_spikes, grad_square, x, weight, bias, threshold, kept, ctx.surrogate
        )
        return *gradients, *(None,) * 4
