"""The passes over a layer's tensors on CPU, in C (``cpu.c``)."""

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .build import library
from .layout import Pair, as_blocks, pooled_size

if TYPE_CHECKING:
    from ..neuron import HoyerSpike

# What torch.compile cannot see into, it must not trace: it would fix the addresses of tensors.
opaque = torch.compiler.disable

# Entries below which a second thread costs more than it saves.
_SHARE = 1 << 15
_EXTREMA = {'layer': 0, 'channel': 1, 'fixed': 2}
# Where the Hoyer square and whether there was a NaN or inf stand in the report on a layer.
_SQUARE, _ODD = 2, 3


class _Layer(ctypes.Structure):
    """``Layer`` of cpu.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ('A', 'C', 'B')),
        *((name, ctypes.c_int) for name in ('threads', 'has_norm', 'extremum', 'exclude')),
        *(
            (name, ctypes.c_float)
            for name in ('eps', 'norm_momentum', 'scale', 'momentum', 'window', 'height')
        ),
    ]


class _Window(ctypes.Structure):
    """``Window`` of cpu.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                *('planes', 'H', 'W', 'OH', 'OW', 'kernel_h', 'kernel_w'),
                *('stride_h', 'stride_w', 'pad_h', 'pad_w'),
            )
        ),
        ('threads', ctypes.c_int),
    ]


@opaque
def forward(
    x: Tensor, layer: 'HoyerSpike', norm: nn.BatchNorm2d | None, track: bool
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Run norm and neuron in training; move their running averages.

    Args:
        x: Membrane potential, or the input of the norm, float32, shape (N, C, ...) without gaps.
        layer: The neuron.
        norm: Batch norm in front of it, if any.
        track: Whether the neuron's running average follows.

    Returns:
        Spikes (as ``x``), the Hoyer square (scalar), whether there was a NaN or inf (0 or 1, scalar),
        and what :func:`backward` wants to be kept.
    """
    a, c, b = as_blocks(x).shape
    threads = _threads(x.numel())
    settings = _Layer(a, c, b, threads, norm is not None, _EXTREMA[layer.extremum])
    settings.exclude = layer.saturated == 'exclude'
    settings.scale = layer.extremum_scale
    settings.momentum = layer.momentum if track else 0.0
    if norm is not None:
        settings.eps, settings.norm_momentum = norm.eps, norm.momentum
    spikes = torch.empty_like(x)
    kept, report = x.new_empty(5 * c), x.new_empty(4)
    scratch = torch.empty(8 * c * threads, dtype=torch.float64)
    of_neuron = layer.threshold, layer.running_extremum, layer.running_weight
    _call('forward', settings, x, *_of_norm(norm), *of_neuron, kept, report, spikes, scratch)
    if norm is not None:
        norm.num_batches_tracked.add_(1)
    return spikes, report[_SQUARE].clone(), report[_ODD], (kept, report)


@opaque
def fire(x: Tensor, level: Tensor, norm: nn.BatchNorm2d | None) -> Tensor:
    """Run norm and neuron in evaluation.

    Args:
        x: As in :func:`forward`.
        level: Firing level in the units of the potential, float32, of shape (1,) or (C,).
        norm: Batch norm in front of the neuron, if any.

    Returns:
        Spikes (as ``x``).
    """
    a, c, b = as_blocks(x).shape
    settings = _Layer(a, c, b, _threads(x.numel()), norm is not None)
    if norm is not None:
        settings.eps = norm.eps
    spikes = torch.empty_like(x)
    level = level.expand(c).contiguous()
    _call('fire', settings, x, *_of_norm(norm), level, x.new_empty(5 * c), spikes)
    return spikes


@opaque
def backward(
    grad_spikes: Tensor | None,
    grad_square: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    threshold: Tensor,
    kept: tuple[Tensor, ...],
    surrogate: tuple[float, float],
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """Compute the gradients of :func:`forward`.

    Args:
        grad_spikes: Gradient of the spikes, of the layout of ``x``, or None.
        grad_square: Gradient of the Hoyer square, or None.
        x: As in :func:`forward`.
        weight: Weight of the norm, None without one.
        bias: Bias of the norm.
        threshold: Clip threshold of the neuron.
        kept: What :func:`forward` returned last.
        surrogate: Window and height of the surrogate gradient, in units of the threshold.

    Returns:
        Gradients of ``x``, of weight and bias of the norm (None without one), and of the threshold.
    """
    a, c, b = as_blocks(x).shape
    threads = _threads(x.numel())
    settings = _Layer(a, c, b, threads, weight is not None)
    settings.window, settings.height = surrogate
    grad, grad_threshold = torch.empty_like(x), torch.empty_like(threshold)
    grad_weight = grad_bias = None
    if weight is not None:
        grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(bias)
    scratch = torch.empty(3 * c * threads, dtype=torch.float64)
    _call(
        'backward',
        *(settings, grad_spikes, grad_square, x, weight, bias, threshold, *kept),
        *(grad, grad_weight, grad_bias, grad_threshold, scratch),
    )
    return grad, grad_weight, grad_bias, grad_threshold


@opaque
def pack(flat: Tensor) -> Tensor:
    """Return float32 entries of 0 and 1, shape (n,), as bits: (ceil(n / 8),) of uint8."""
    bits = torch.empty((len(flat) + 7) // 8, dtype=torch.uint8)
    _call('pack', flat, bits, ctypes.c_int64(len(flat)), _threads(len(flat)))
    return bits


@opaque
def unpack(bits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the entries of bits (n,) as float32, the only ``dtype`` here, (8 * n,)."""
    flat = torch.empty(8 * len(bits), dtype=dtype)
    _call('unpack', bits, flat, ctypes.c_int64(len(bits)), _threads(len(flat)))
    return flat


@opaque
def max_pool(
    x: Tensor, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    """Return the maxima and which entry of its window each is, as a byte; both (N, C, H', W').

    Args:
        x: Contiguous float32 (N, C, H, W).
        kernel: Height and width of the window, at most 256 entries.
        stride: Steps of the window.
        padding: Entries added on each side, which are never the largest.
        ceil_mode: Whether a window that reaches over the end counts, if it begins before it.
    """
    size = pooled_size(x.shape, kernel, stride, padding, ceil_mode)
    out = x.new_empty(*x.shape[:2], *size)
    places = torch.empty(out.shape, dtype=torch.uint8)
    _call('max_pool', _window(x.shape, size, kernel, stride, padding), x, out, places)
    return out, places


@opaque
def max_pool_backward(
    grad: Tensor,
    places: Tensor,
    out: Tensor,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
) -> Tensor:
    """Fill ``out`` with the gradient of the input of :func:`max_pool`, and return it."""
    window = _window(out.shape, places.shape[2:], kernel, stride, padding)
    _call('max_pool_backward', window, grad.contiguous(), places, out)
    return out


def _window(
    shape: torch.Size, size: Sequence[int], kernel: Pair, stride: Pair, padding: Pair
) -> _Window:
    planes = shape[0] * shape[1]
    threads = _threads(planes * shape[2] * shape[3])
    return _Window(planes, *shape[2:], *size, *kernel, *stride, *padding, threads)


def _of_norm(norm: nn.BatchNorm2d | None) -> tuple[Tensor | None, ...]:
    if norm is None:
        return (None,) * 4
    return norm.weight, norm.bias, norm.running_mean, norm.running_var


def _threads(entries: int) -> int:
    return max(1, min(torch.get_num_threads(), entries // _SHARE))


def _call(name: str, *arguments: object) -> None:
    """Call a function of the library."""
    getattr(library(), name)(*map(_argument, arguments))


def _argument(value: object) -> object:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.byref(value) if isinstance(value, ctypes.Structure) else value
