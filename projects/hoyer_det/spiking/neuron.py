"""The one-time-step spiking neuron whose firing level is the Hoyer extremum of its layer."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .hoyer import power_sums, square_of_sums

Extremum = Literal['layer', 'channel', 'fixed']
Saturated = Literal['clip', 'exclude']
# Called with the layer, its spikes, and in training its Hoyer square.
Observer = Callable[['HoyerSpike', Tensor, Tensor | None], None]


def hoyer_spike(u: Tensor, v: Tensor, layer: 'HoyerSpike') -> tuple[Tensor, ...]:
    r"""Fire where the normalised potential reaches the Hoyer extremum of its layer.

    .. math:: z = u / |v|, \quad c = \mathrm{clip}(z, 0, 1), \quad E = \textstyle\sum c^2 / \sum c,
              \quad o = [z \ge s E], \quad H = (\sum c)^2 / \sum c^2

    ``H`` does not change when ``c`` is scaled, so nothing is divided by ``|v|``: below, ``c`` is
    :math:`|v| c` and the level :math:`|v| s E`. ``E`` gets no gradient.

    Returns:
        Spikes, ``H`` (scalar), ``E`` of shape (1,) or (C,), and where there is an ``E``.
    """
    clip = v.abs()
    # In half precision, the sum that is the gradient of v would overflow.
    wide = u.to(torch.promote_types(u.dtype, torch.float32))
    c = torch.clamp(wide, wide.new_zeros(()), clip.to(wide.dtype))
    dims = [d for d in range(u.dim()) if d != 1 or layer.extremum != 'channel']
    first, second = power_sums(c, dims, layer.synchronise)
    square = square_of_sums(first.sum(), second.sum())
    with torch.no_grad():
        if layer.saturated == 'exclude' and layer.extremum != 'fixed':
            below = c.masked_fill(u >= clip, 0.0)
            first, second = power_sums(below, dims, layer.synchronise)
        # A NaN compares as False.
        valid = ((second > 0) & torch.isfinite(second / first)).view(-1)
        extremum = torch.ones_like(valid, dtype=first.dtype)
        if layer.extremum != 'fixed':
            extremum = torch.where(valid, (second / (first * clip)).view(-1), extremum)
    return layer.fire(u, extremum), square, extremum, valid


class _Step(torch.autograd.Function):
    r""":math:`o = [u \ge \mathrm{level}]` with :math:`\partial o/\partial z = h [0 < z \le w]`."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, level: Tensor, w: float, h: float) -> Tensor:
        ctx.save_for_backward(u, v)
        ctx.box = w, h
        return (u >= level).to(u.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (u, v), (w, h) = ctx.saved_tensors, ctx.box
        clip = v.abs()
        inside = (u > 0) & (u <= w * clip)
        slope = torch.where(clip > 0, h / clip, 0.0).to(grad.dtype)
        grad_u = torch.where(inside, grad * slope, 0.0)
        # Spikes depend on u and v through u / |v| alone, so u du + v dv = 0.
        along = torch.sum(grad_u * u, dtype=torch.promote_types(u.dtype, torch.float32))
        return grad_u, torch.where(v == 0, 0.0, -along / v).to(v.dtype), None, None, None


class HoyerSpike(nn.Module):
    r"""One-time-step spiking activation with a Hoyer-extremum firing level.

    The rule is :func:`hoyer_spike`, with the sums over the whole layer or over each channel, and the
    surrogate gradient :math:`\partial o / \partial z = h` for :math:`0 < z \le w`. Source: Datta, Liu
    and Beerel, "Hoyer regularizer is all you need for ultra low-latency spiking neural networks",
    arXiv 2212.10170.

    In training, :math:`E` is the batch's, and an exponential average follows it,
    ``running = (1 - momentum) * running + momentum * E``, starting from 0. Evaluation uses that
    average, divided by the weight of the batches in it, ``1 - (1 - momentum)**n`` after ``n`` batches,
    so that the start at 0 leaves no trace. The weight is a buffer of its own, so that the quotient
    still holds when buffers are averaged (an EMA of the model, several processes).

    A layer or channel without a positive potential leaves its average alone. One that never had any
    evaluates with :math:`E = 1`; :func:`untrained_layers` finds layers before their first training
    step. Gradient checkpointing runs the forward pass twice and so moves the average twice, as that
    of a batch norm, unless ``tracking`` is False in the second.

    Args:
        num_features: Number of channels C, needed for ``extremum='channel'`` only. Without it the
            first batch or checkpoint tells; copies made before that (``EMAHook``) do not learn it.
        extremum: ``'layer'``: one :math:`E` for the whole tensor (the paper). ``'channel'``: one for
            each entry of dimension 1 (the authors' ImageNet VGG16). ``'fixed'``: :math:`E = 1`.
        threshold: Initial clip threshold :math:`v`, in the units of the potential; not 0.
        extremum_scale: :math:`s`, in ``z >= s * E``; positive.
        saturated: ``'clip'``: potentials of ``z >= 1`` count as 1 in :math:`E` (the paper).
            ``'exclude'``: they are left out of both sums (the authors' public code).
        momentum: Weight of the newest batch in the running average, in (0, 1].
        surrogate_window: :math:`w`, upper end of the box, in units of :math:`z`.
        surrogate_height: :math:`h`, the height of the box.
        synchronise: Whether sums run over the batches of all processes, as in ``SyncBatchNorm``.
        inplace: Accepted because mmcv's ``ConvModule`` gives it to every activation; has no effect.

    Attributes:
        threshold: The trainable clip threshold :math:`v`, a scalar parameter.
        running_extremum: Buffer of shape (1,), or (C,) for ``extremum='channel'``.
        running_weight: Buffer of the same shape: the same exponential average of the constant 1.
        tracking: Whether averages and observers follow in training, True by default.

    Raises:
        ValueError: If an argument is out of its range, or the input has another number of channels.

    Shape:
        Input (N, C, ...), output the same shape and type with entries 0 and 1.

    Example:
        >>> layer = HoyerSpike(threshold=2.0)
        >>> layer(torch.tensor([[0.5, 1.0, 4.0, -1.0]]))  # E = 1.3125 / 1.75, so it fires from 1.5 on
        tensor([[0., 0., 1., 0.]], grad_fn=<_StepBackward>)
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
        synchronise: bool = False,
        inplace: bool = False,
    ) -> None:
        super().__init__()
        _check('extremum', extremum, extremum in ('layer', 'channel', 'fixed'))
        _check('saturated', saturated, saturated in ('clip', 'exclude'))
        _check('num_features', num_features, num_features is None or num_features >= 1)
        _check('threshold', threshold, threshold != 0 and math.isfinite(threshold))
        _check('momentum', momentum, 0 < momentum <= 1)
        _check('extremum_scale', extremum_scale, 0 < extremum_scale < math.inf)
        _check('surrogate_window', surrogate_window, 0 < surrogate_window < math.inf)
        _check('surrogate_height', surrogate_height, 0 < surrogate_height < math.inf)
        self.num_features = num_features
        self.extremum = extremum
        self.extremum_scale = extremum_scale
        self.saturated = saturated
        self.momentum = momentum
        self.surrogate_window = surrogate_window
        self.surrogate_height = surrogate_height
        self.synchronise = synchronise
        self.tracking = True
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))
        # 0 entries: channels not known yet; see `set_channels`.
        entries = (num_features or 0) if extremum == 'channel' else 1
        self.register_buffer('running_extremum', torch.zeros(entries))
        self.register_buffer('running_weight', torch.zeros(entries))
        self._observers: list[Observer] = []
        self._nonfinite: Tensor | None = None

    def forward(self, potential: Tensor) -> Tensor:
        """Turn membrane potentials (N, C, ...) into spikes of the same shape and type."""
        self.set_channels(potential.size(1) if potential.dim() > 1 else 1)
        if not self.training:
            return self.emit(self.fire(potential, self.average_extremum()))
        spikes, *statistics = hoyer_spike(potential, self.threshold, self)
        # An empty batch, such as that of a head without proposals, has no least potential.
        ends = torch.stack(torch.aminmax(potential.detach())) if potential.numel() else potential
        return self.emit(spikes, *statistics, ~torch.isfinite(ends).all())

    def fire(self, potential: Tensor, extremum: Tensor) -> Tensor:
        """Return the spikes at a given extremum of shape (1,) or (C,)."""
        level = self.extremum_scale * self.threshold.detach().abs() * extremum
        level = level.view(-1, *[1] * (potential.dim() - 2))
        if torch.is_grad_enabled():
            box = self.surrogate_window, self.surrogate_height
            return _Step.apply(potential, self.threshold, level, *box)
        return (potential >= level).to(potential.dtype)

    def emit(
        self,
        spikes: Tensor,
        square: Tensor | None = None,
        extremum: Tensor | None = None,
        valid: Tensor | None = None,
        nonfinite: Tensor | None = None,
    ) -> Tensor:
        """Return the spikes; move the running average and call the observers.

        Whatever computes the spikes, this is the one place where the layer's state changes. The other
        arguments belong to training: ``H``, ``E`` and where there is one (:func:`hoyer_spike`), and
        whether a potential was NaN or inf.
        """
        if not self.tracking:
            return spikes
        if extremum is not None:
            weight = valid.to(self.running_weight.dtype) * self.momentum
            self.running_extremum.lerp_(extremum.to(weight.dtype), weight)
            self.running_weight.lerp_(torch.ones_like(weight), weight)
            # Counted without waiting for the device; `check_potentials` asks.
            nonfinite = nonfinite.float()
            self._nonfinite = nonfinite if self._nonfinite is None else self._nonfinite + nonfinite
        for observe in self._observers:
            observe(self, spikes, square)
        return spikes

    def average_extremum(self) -> Tensor:
        """Return the running average of ``E``, corrected for its start at 0; 1 where there is none."""
        known = self.running_weight > 0
        return torch.where(known, self.running_extremum / self.running_weight, 1.0)

    def set_channels(self, channels: int) -> None:
        """Fix the number of channels C for ``extremum='channel'``, as the first input does.

        Raises:
            ValueError: If the layer was made for another number.
        """
        known = self.running_extremum.numel()
        if self.extremum != 'channel' or known == channels:
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
        if stored is not None and not self.running_extremum.numel():
            self.set_channels(stored.numel())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        # Observers belong to a context around this object, not to its copies.
        return {**self.__dict__, '_observers': []}

    def extra_repr(self) -> str:
        """Describe the layer by its arguments."""
        names = 'num_features', 'extremum', 'extremum_scale', 'saturated', 'momentum'
        return ', '.join(f'{name}={getattr(self, name)!r}' for name in names)


_WANTED = dict(
    extremum="'layer', 'channel' or 'fixed'",
    saturated="'clip' or 'exclude'",
    num_features='at least 1',
    threshold='finite and not 0',
    momentum='in (0, 1]',
)


def _check(name: str, value: object, fits: bool) -> None:
    if not fits:
        wanted = _WANTED.get(name, 'positive and finite')
        raise ValueError(f'HoyerSpike: {name} must be {wanted}, got {value!r}')
