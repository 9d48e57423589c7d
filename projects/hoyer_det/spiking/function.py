"""The spike and the Hoyer square of one layer as a single differentiable function."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .hoyer import accumulation_dtype


class SpikeFunction(torch.autograd.Function):
    r"""Fire where the membrane potential reaches a level; hand back the Hoyer square beside it.

    With :math:`z = u / |v|` and :math:`c = \mathrm{clip}(z, 0, 1)` (arXiv 2212.10170):

    .. math::
        o = [u \ge \mathrm{level}], \qquad H = (\textstyle\sum c)^2 / \sum c^2

        \partial o / \partial z = \mathrm{height} \cdot [0 < z \le \mathrm{window}], \qquad
        \partial H / \partial c_i = 2 S_1 / S_2 - 2 S_1^2 c_i / S_2^2

    Both gradients reach ``u`` and ``v``; ``level`` is a constant. ``H`` does not change with the
    scale of its argument, so everything is computed in the units of ``u`` and the tensor is never
    divided by ``v``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        potential: Tensor,
        threshold: Tensor,
        level: Tensor,
        first: Tensor,
        second: Tensor,
        window: float,
        height: float,
    ) -> tuple[Tensor, Tensor]:
        """Compute the spikes.

        Args:
            ctx: Autograd context.
            potential: Membrane potential ``u``, shape (N, C, ...).
            threshold: Clip threshold ``v``, a scalar.
            level: Firing level in the units of ``u``, broadcast against ``u``.
            first: Sum over the layer of ``clip(u, 0, |v|)``, a scalar.
            second: Sum over the layer of its square, a scalar.
            window: Upper end of the surrogate gradient, in units of ``z``.
            height: Value of the surrogate gradient inside its window.

        Returns:
            Spikes (0 or 1, shape and type of ``u``) and the Hoyer square (scalar, 0 if ``u`` has no
            positive entry).
        """
        ctx.save_for_backward(potential, threshold, first, second)
        ctx.window, ctx.height = window, height
        ctx.set_materialize_grads(False)
        spikes = _fire(potential, level)
        square = first.square() / second.masked_fill(second == 0, 1.0)
        return spikes, square

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_spikes: Tensor | None, grad_square: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the potential and of the threshold."""
        potential, threshold, first, second = ctx.saved_tensors
        dtype = accumulation_dtype(potential.dtype)
        clip = threshold.abs().to(potential.dtype)
        grad = None
        if grad_spikes is not None:
            grad = _pass_inside(grad_spikes, potential, ctx.window * clip)
            grad = grad.mul_((ctx.height / clip).to(grad.dtype))
        if grad_square is not None:
            scale, ratio = _pull(first, second, grad_square)
            pull = potential * (-scale * ratio).to(potential.dtype)
            pull = _pass_inside(pull.add_(scale.to(potential.dtype)), potential, clip)
            grad = pull if grad is None else grad.add_(pull)
        if grad is None:
            return (None,) * 7
        # Spikes and Hoyer square depend on u and v through u / |v| alone, so u du + v dv = 0.
        along = torch.sum(grad.to(dtype) * potential.to(dtype))
        grad_threshold = (-along / threshold).to(threshold.dtype)
        return grad, grad_threshold, None, None, None, None, None


def _fire(potential: Tensor, level: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return (potential >= level).to(potential.dtype)
    # Written as the type of the potential at once: no boolean tensor in between.
    return torch.ge(potential, level, out=torch.empty_like(potential))


def _pull(first: Tensor, second: Tensor, grad_square: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``s`` and ``r`` of the Hoyer square's gradient ``s * (1 - r * u)`` inside the clip."""
    empty = second == 0
    ratio = first / second.masked_fill(empty, 1.0)
    return torch.where(empty, 0.0, 2.0 * ratio * grad_square), ratio


def _pass_inside(grad: Tensor, potential: Tensor, upper: Tensor) -> Tensor:
    """Return ``grad`` where ``0 < potential <= upper``, 0 elsewhere."""
    if potential.device.type == 'cpu' and not torch.compiler.is_compiling():
        # One pass instead of four. That operator excludes its upper bound.
        bound = torch.nextafter(upper, upper.new_tensor(torch.inf)).item()
        return torch.ops.aten.hardtanh_backward(grad, potential, 0.0, bound)
    return torch.where((potential > 0) & (potential <= upper), grad, 0.0)
