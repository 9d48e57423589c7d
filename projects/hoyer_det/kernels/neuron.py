"""Batch norm and neuron in one differentiable function, and the modules that use it."""

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..spiking import HoyerSpike
from .dispatch import Level, check_level, neuron_kernels
from .layout import readable


class Settings(NamedTuple):
    """Numbers that the kernels are given beside tensors; named as in ``HoyerSpike``."""

    extremum: str
    exclude: bool
    scale: float
    window: float
    height: float
    eps: float = 0.0


class FastHoyerSpike(HoyerSpike):
    """``HoyerSpike`` computed by the kernels of this package, together with the batch norm before it.

    Registered as ``HoyerSpike``. Spikes, gradients and buffers are those of the base class within
    rounding. Forward hooks see the spikes; where a norm is handed over (:func:`norm_spike`), their
    second input is that norm and the first is the norm's input. The norm's own hooks are not called
    then: to look at potentials or norms, choose ``kernels='plain'`` or call
    :func:`hoyer_det.kernels.set_kernels`.

    Args:
        *args: As for ``HoyerSpike``.
        kernels: Level of the implementation, see :func:`hoyer_det.kernels.set_kernels`.
        **kwargs: As for ``HoyerSpike``.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> act = FastHoyerSpike(64, extremum='channel', kernels='tested')
        >>> spikes = norm_spike(nn.BatchNorm2d(64), act, torch.randn(2, 64, 8, 8))
    """

    kernels: Level = 'tested'

    def __init__(self, *args: Any, kernels: Level = 'tested', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kernels = check_level('HoyerSpike', kernels)

    def forward(self, x: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """Turn membrane potentials into spikes of the same shape and type.

        Args:
            x: Membrane potential (N, C, ...); with ``norm`` the input of that norm.
            norm: Batch norm that gives the potential.
        """
        kernels = self._kernels_for(x, norm)
        if kernels is None:
            return super().forward(x if norm is None else norm(x))
        self.set_channels(x.size(1))
        settings = Settings(
            self.extremum,
            self.saturated == 'exclude' and self.extremum != 'fixed',
            self.extremum_scale,
            self.surrogate_window,
            self.surrogate_height,
            0.0 if norm is None else norm.eps,
        )
        if not self.training:
            level = self.extremum_scale * self.threshold.abs() * self.average_extremum()
            affine = (
                ()
                if norm is None
                else (norm.weight, norm.bias, norm.running_mean, norm.running_var)
            )
            return self.emit(kernels.fire(x, level, affine, settings.eps))
        weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
        spikes, square, statistics, nonfinite = _NormSpike.apply(
            x, weight, bias, self.threshold, settings, kernels
        )
        mean, var, extremum, valid = kernels.statistics_of(
            statistics, self.running_extremum.numel()
        )
        if norm is not None:
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(var, norm.momentum)
            norm.num_batches_tracked.add_(1)
        return self.emit(spikes, square, extremum, valid, nonfinite)

    def _kernels_for(self, x: Tensor, norm: nn.BatchNorm2d | None) -> ModuleType | None:
        """Return the kernels that can do the work of this layer, None for PyTorch's operations."""
        kernels = neuron_kernels(self.kernels, x)
        if kernels is None or self.synchronise or not readable(x, 1, self.threshold):
            return None
        if norm is not None:
            own = norm.weight, norm.bias, norm.running_mean, norm.running_var
            fits = (
                norm.training == self.training
                and norm.affine
                and norm.track_running_stats
                and norm.momentum is not None
                and norm.num_batches_tracked is not None
                and x.dim() == 4
                and x.numel() > x.size(1)
                and readable(x, x.size(1), *own)
            )
            if not fits:
                return None
        if not self.training and torch.is_grad_enabled():
            # Evaluation with gradients wants the surrogate.
            inputs = (x, self.threshold) if norm is None else (x, self.threshold, *own[:2])
            if any(tensor.requires_grad for tensor in inputs):
                return None
        return kernels


def norm_spike(norm: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """Return ``act(norm(x))``, computed in one where the two are a batch norm and a neuron.

    Args:
        norm: Norm of any kind.
        act: Activation of any kind.
        x: Input of the norm, (N, C, H, W).
    """
    fast = isinstance(act, FastHoyerSpike) and act.kernels != 'plain'
    if fast and type(norm) is nn.BatchNorm2d:
        return act(x, norm)
    return act(norm(x))


class _NormSpike(torch.autograd.Function):
    """Norm and neuron, of which only the norm's input is kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        threshold: Tensor,
        settings: Settings,
        kernels: ModuleType,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        spikes, square, statistics, nonfinite = kernels.forward(
            x, weight, bias, threshold, settings
        )
        ctx.save_for_backward(x, weight, bias, threshold, statistics)
        ctx.settings, ctx.kernels = settings, kernels
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(statistics, nonfinite)
        return spikes, square, statistics, nonfinite

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_spikes: Tensor | None, grad_square: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        if grad_spikes is None and grad_square is None:
            return (None,) * 6
        x, *rest = ctx.saved_tensors
        if grad_spikes is not None and grad_spikes.stride() != x.stride():
            grad_spikes = torch.empty_like(x).copy_(grad_spikes)
        gradients = ctx.kernels.backward(grad_spikes, grad_square, x, *rest, ctx.settings)
        return *gradients, None, None
