"""The one-time-step spiking neuron whose firing level is the Hoyer extremum of its layer."""

import math
import warnings
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .function import SpikeFunction
from .fused.bits import mark_spikes
from .fused.function import FusedSpikeFunction
from .fused.layout import readable
from .fused.switch import check_environment, passes_for
from .hoyer import accumulation_dtype

Extremum = Literal['layer', 'channel', 'fixed']
Saturated = Literal['clip', 'exclude']


class HoyerSpike(nn.Module):
    r"""One-time-step spiking activation with a Hoyer-extremum firing level.

    For a membrane potential :math:`u` and the trainable clip threshold :math:`v`, with
    :math:`z = u / |v|` and :math:`c = \mathrm{clip}(z, 0, 1)`, a neuron fires

    .. math:: o = [z \ge s \, E], \qquad E = \sum c^2 / \sum c

    where the sums run over the whole layer or over each channel. :math:`E` gets no gradient. The
    surrogate gradient of the step is the box :math:`\partial o / \partial z = h` for
    :math:`0 < z \le w`. Source: Datta, Liu and Beerel, "Hoyer regularizer is all you need for ultra
    low-latency spiking neural networks", arXiv 2212.10170.

    In training, :math:`E` is the batch's, and an exponential average follows it,
    ``running = (1 - momentum) * running + momentum * E``, starting from 0. In evaluation that average
    is used, divided by the weight of the batches in it, ``1 - (1 - momentum)**n`` after ``n`` batches,
    so that the start at 0 leaves no trace. The weight is kept as a number of its own, so that the
    quotient still holds when somebody averages buffers (an EMA of the model, several processes).

    A layer (or channel) without a positive potential does not fire and leaves its average alone; a
    channel that never had one fires at the clip threshold. A layer evaluated before it saw any batch
    (also in ``frozen_stages`` without a checkpoint) uses the batch's own extremum and warns once.

    Args:
        num_features: Number of channels C. Only ``extremum='channel'`` needs it; where it is not
            known beforehand (an ``act_cfg``), the first batch or checkpoint tells; a copy made before
            that, as ``EMAHook`` makes one, does not learn it, so name the number there.
        extremum: ``'layer'``: one :math:`E` for the whole tensor (the paper).
            ``'channel'``: one per channel, dimension 1, over N and space (the authors' ImageNet VGG16
            recipe); not for token layouts (N, L, C).
            ``'fixed'``: :math:`E = 1`, the neuron fires at the clip threshold itself; with it the
            layer is a plain 1-bit activation.
        threshold: Initial clip threshold :math:`v`, in the units of the potential; not 0.
        extremum_scale: :math:`s`, in ``z >= s * E``; positive.
        saturated: ``'clip'``: potentials of ``z >= 1`` count as 1 in :math:`E` (the paper).
            ``'exclude'``: they are left out of both sums (the authors' public code).
        momentum: Weight of the newest batch in the running average, in (0, 1].
        surrogate_window: :math:`w`, upper end of the box, in units of :math:`z`.
        surrogate_height: :math:`h`, the height of the box.
        inplace: Accepted because mmcv's ``ConvModule`` hands it to every activation; the potential
            is needed for the gradient, so nothing is ever done in place.

    Attributes:
        threshold: The trainable clip threshold :math:`v`, a scalar parameter.
        running_extremum: Buffer of shape (1,), or (C,) for ``extremum='channel'``.
        running_weight: Buffer of the same shape, the weight of the batches behind each average:
            the same exponential average of the constant 1.

    Raises:
        ValueError: If an argument is out of its range, or the input has another number of channels.

    Shape:
        Input (N, C, ...), output the same shape and type with entries 0 and 1.
    """

    def __init__(
        self,
        num_features: int | None = None,
        extremum: Extremum = 'layer',
        threshold: float = 1.0,
        extremum_scale: float = 1.0,
        saturated: Saturated = 'clip',
        momentum: float = 0.1,
        surrogate_window: float = 2.0,
        surrogate_height: float = 0.5,
        inplace: bool = False,
    ) -> None:
        super().__init__()
        check_environment()  # before anything is trained
        _check_choice('extremum', extremum, ('layer', 'channel', 'fixed'))
        _check_choice('saturated', saturated, ('clip', 'exclude'))
        if num_features is not None and num_features < 1:
            raise ValueError(f'HoyerSpike: num_features must be at least 1, got {num_features}')
        if threshold == 0 or not math.isfinite(threshold):
            raise ValueError(f'HoyerSpike: threshold must be finite and not 0, got {threshold}')
        if not 0 < momentum <= 1:
            raise ValueError(f'HoyerSpike: momentum must lie in (0, 1], got {momentum}')
        for name, value in (
            ('extremum_scale', extremum_scale),
            ('surrogate_window', surrogate_window),
            ('surrogate_height', surrogate_height),
        ):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f'HoyerSpike: {name} must be positive, got {value}')
        self.num_features = num_features
        self.extremum = extremum
        self.extremum_scale = extremum_scale
        self.saturated = saturated
        self.momentum = momentum
        self.surrogate_window = surrogate_window
        self.surrogate_height = surrogate_height
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))
        # 0 entries: channels not known yet; see `set_channels`.
        entries = (num_features or 0) if extremum == 'channel' else 1
        self.register_buffer('running_extremum', torch.zeros(entries))
        self.register_buffer('running_weight', torch.zeros(entries))
        self._square_log: list[Tensor] | None = None
        self._nonfinite: Tensor | None = None
        self._warned = False
        self._trained = False

    def forward(self, potential: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """Turn membrane potentials (N, C, ...) into spikes of the same shape and type.

        Args:
            potential: Membrane potential; with ``norm`` the input of that norm.
            norm: Batch norm that gives the potential, computed here together with the spikes so that
                the potential itself is not kept. Only where :meth:`takes_norm` allows it.
        """
        channels = potential.size(1) if potential.dim() > 1 else 1
        self.set_channels(channels)
        if not self.training and self._has_average():
            return self._evaluate(potential, norm)

        track = self.training and not _inside_backward()
        passes = self._passes(potential) if self.training else None
        if passes is not None:
            weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
            spikes, square, odd = FusedSpikeFunction.apply(
                potential, weight, bias, self.threshold, self, norm, track, passes
            )
        else:
            if norm is not None:
                # `takes_norm` was asked in ordinary code, and torch.compile traces this.
                potential = norm(potential)
            with torch.no_grad():
                first, second, extremum, valid = self._sums(potential)
                total = potential.sum(dtype=accumulation_dtype(potential.dtype))
                odd = ~torch.isfinite(total)
                if not self.training:
                    self._warn_untrained()
                if track:
                    self._track(extremum, valid)
            spikes, square = self._fire(potential, extremum, first, second)
        if track:
            self._note_nonfinite(odd)
        if self.training and self._square_log is not None:
            if self.threshold.requires_grad and not square.requires_grad:
                raise RuntimeError(
                    'HoyerSpike: its Hoyer square is wanted while gradients are off, as they are inside '
                    'reentrant gradient checkpointing. Set with_cp=False in that module; the Hoyer '
                    'backbones checkpoint without reentry'
                )
            self._square_log.append(square)
        return mark_spikes(spikes)

    def takes_norm(self, norm: nn.Module, x: Tensor) -> bool:
        """Tell whether ``forward(x, norm)`` may stand for ``forward(norm(x))``.

        It may for a plain affine ``BatchNorm2d`` with a fixed momentum and running averages, where
        nobody listens to either module by hooks and there are fused passes for the device, type and
        layout of ``x``: in training with gradients, and in evaluation without.

        Args:
            norm: Norm in front of this layer.
            x: Input of the norm.
        """
        hooks = (norm._forward_hooks, norm._forward_pre_hooks, norm._backward_hooks)
        hooks += (norm._backward_pre_hooks, self._forward_hooks, self._forward_pre_hooks)
        hooks += (self._backward_hooks, self._backward_pre_hooks)
        return (
            type(norm) is nn.BatchNorm2d
            and norm.training == self.training == torch.is_grad_enabled()
            and norm.affine
            and norm.track_running_stats
            and norm.momentum is not None
            and norm.num_batches_tracked is not None
            and not any(hooks)
            and not _has_any_global_hook()
            and 'forward' not in vars(norm)  # nor puts something in its place
            and x.dim() == 4
            and x.numel() > x.size(1)
            and self._passes(x) is not None
            and readable(x, x.size(1), norm.weight, norm.bias, norm.running_mean, norm.running_var)
            and (self.training or self._has_average())
        )

    def _evaluate(self, x: Tensor, norm: nn.BatchNorm2d | None) -> Tensor:
        """Return the spikes at the running average of the extremum."""
        extremum = self._running_average()
        passes = None if torch.is_grad_enabled() else self._passes(x)
        if passes is not None:
            return passes.fire(x, self._level(extremum), norm)
        return self._fire(x if norm is None else norm(x), extremum)[0]

    def _passes(self, x: Tensor) -> ModuleType | None:
        """Return the fused passes for ``x`` if they can read and move the layer's own numbers."""
        passes = passes_for(x)
        if passes is None:
            return None
        channels = x.size(1) if self.extremum == 'channel' else 1
        averages = self.running_extremum, self.running_weight
        fits = readable(x, 1, self.threshold) and readable(x, channels, *averages)
        return passes if fits else None

    def _sums(self, potential: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Reduce the potential to what the layer needs to know about it.

        Returns:
            Sum and sum of squares of ``clip(u, 0, |v|)`` over the layer; the extremum ``E`` of the
            shape of ``running_extremum``, 1 where there is none; and where there is one.
        """
        dtype = accumulation_dtype(potential.dtype)
        clip = self.threshold.abs().to(potential.dtype)
        clipped = torch.clamp(potential, torch.zeros_like(clip), clip)
        dims = tuple(d for d in range(potential.dim()) if d != 1 or self.extremum != 'channel')
        first = clipped.sum(dims, dtype=dtype)
        second = clipped.to(dtype).square().sum(dims)
        layer_sums = first.sum(), second.sum()
        if self.saturated == 'exclude' and self.extremum != 'fixed':
            clipped = clipped.masked_fill_(potential >= clip, 0.0)
            first = clipped.sum(dims, dtype=dtype)
            second = clipped.to(dtype).square().sum(dims)
        return *layer_sums, *self._extremum(first, second)

    def _extremum(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return the extremum of the given sums, 1 where there is none, and where there is one."""
        # A NaN compares as False, so it never gets into the running average.
        valid = (second > 0) & torch.isfinite(second)
        extremum = torch.ones_like(first)
        if self.extremum != 'fixed':
            ratio = second / (first * self.threshold.abs())
            extremum = torch.where(valid, ratio, extremum)
        return extremum.view(-1), valid.view(-1)

    def _fire(
        self,
        potential: Tensor,
        extremum: Tensor,
        first: Tensor | None = None,
        second: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the spikes at a given extremum, and the Hoyer square where its sums are given."""
        zero = extremum.new_zeros(())
        shape = (1, -1) + (1,) * (potential.dim() - 2) if potential.dim() > 1 else (-1,)
        return SpikeFunction.apply(
            potential,
            self.threshold,
            self._level(extremum).view(shape),
            zero if first is None else first,
            zero if second is None else second,
            self.surrogate_window,
            self.surrogate_height,
        )

    def _level(self, extremum: Tensor) -> Tensor:
        """Return the firing level in the units of the potential."""
        return self.extremum_scale * self.threshold.detach().abs() * extremum

    def _has_average(self) -> bool:
        """Tell whether any batch was tracked; the device is asked until the answer is yes."""
        if not self._trained:
            self._trained = bool((self.running_weight > 0).any())
        return self._trained

    def _running_average(self) -> Tensor:
        """Return the average of the extremum, corrected for its start at 0.

        A channel that never had a positive potential has none: it fires at the clip threshold.
        """
        average = self.running_extremum / self.running_weight
        return torch.where(self.running_weight > 0, average, 1.0)

    def _track(self, extremum: Tensor, valid: Tensor) -> None:
        """Let the running average follow the extremum wherever there is one."""
        weight = valid.to(self.running_weight.dtype) * self.momentum
        self.running_extremum.lerp_(extremum.to(self.running_extremum.dtype), weight)
        self.running_weight.lerp_(torch.ones_like(weight), weight)

    def _note_nonfinite(self, odd: Tensor) -> None:
        """Count, without waiting for the device, the inputs that held a NaN or an inf."""
        odd = odd.int()
        self._nonfinite = odd if self._nonfinite is None else self._nonfinite + odd

    def _warn_untrained(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                'HoyerSpike is evaluated before it has seen a training batch: it fires at the '
                'extremum of the batch at hand. Load a checkpoint or train first if that is not meant.',
                stacklevel=3,
            )

    def set_channels(self, channels: int) -> None:
        """Fix the number of channels, of which ``extremum='channel'`` keeps an average each.

        The first input does the same.

        Args:
            channels: Number of channels.

        Raises:
            ValueError: If the layer was made for another number.
        """
        if self.extremum != 'channel':
            return
        known = self.running_extremum.numel()
        if known == channels:
            return
        if known:
            raise ValueError(
                f'HoyerSpike: the input has {channels} channels, the layer was made for {known} '
                '(num_features)'
            )
        with torch.no_grad():
            # In place, so that whoever already holds the buffers, such as DDP, keeps holding them.
            self.running_extremum.resize_(channels).zero_()
            self.running_weight.resize_(channels).zero_()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        stored = state_dict.get(f'{prefix}running_extremum')
        if self.extremum == 'channel' and stored is not None and not self.running_extremum.numel():
            self.set_channels(stored.numel())
        self._trained = False
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Describe the layer by its arguments."""
        return (
            f'num_features={self.num_features}, extremum={self.extremum!r}, '
            f'extremum_scale={self.extremum_scale}, saturated={self.saturated!r}, '
            f'momentum={self.momentum}'
        )


def _inside_backward() -> bool:
    """Tell whether gradient checkpointing runs the forward pass a second time."""
    # Compiled code does that by its own means, and cannot ask.
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f'HoyerSpike: {name} must be one of {choices}, got {value!r}')
