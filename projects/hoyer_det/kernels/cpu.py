"""Norm and neuron, max pooling and bits on a CPU, in C (``cpu.c``)."""

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .build import library
from .layout import Pair, as_blocks, pooled_size

if TYPE_CHECKING:
    from .neuron import Settings

# Entries below which a second thread costs more than it saves.
_SHARE = 1 << 15
_Address = ctypes.c_void_p
_EXTREMA = {'layer': 0, 'channel': 1, 'fixed': 2}
# Rows of the statistics, each an entry for a channel, and numbers of the whole layer behind them.
_MEAN, _VAR, _EXTREMUM, _VALID, _ROWS = 2, 5, 6, 7, 8
_NUMBERS = 2


class _Layer(ctypes.Structure):
    """``Layer`` of cpu.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ('A', 'C', 'B')),
        *((name, ctypes.c_int) for name in ('threads', 'has_norm', 'extremum', 'exclude')),
        *((name, ctypes.c_float) for name in ('eps', 'scale', 'window', 'height')),
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


def _layer(x: Tensor, has_norm: bool, settings: 'Settings') -> _Layer:
    a, c, b = as_blocks(x)
    return _Layer(
        *(a, c, b, _threads(a * c * b), has_norm, _EXTREMA[settings.extremum], settings.exclude),
        *(settings.eps, settings.scale, settings.window, settings.height),
    )


def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, threshold: Tensor, settings: 'Settings'
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run norm and neuron in training.

    Args:
        x: Membrane potential, or the input of the norm, float32, shape (N, C, ...) without gaps.
        weight: Weight of the batch norm in front of the neuron, (C,); None without one.
        bias: Its bias.
        threshold: Clip threshold of the neuron, a scalar.
        settings: Numbers.

    Returns:
        Spikes (as ``x``), the Hoyer square (scalar), the statistics that :func:`backward` and
        :func:`statistics_of` read, and whether there was a NaN or inf (0 or 1, scalar).
    """
    layer = _layer(x, weight is not None, settings)
    spikes, statistics = torch.empty_like(x), torch.empty(_ROWS * layer.C + _NUMBERS, device='cpu')
    square, nonfinite = torch.empty((), device='cpu'), torch.empty((), device='cpu')
    scratch = torch.empty(8 * layer.C * layer.threads, dtype=torch.float64, device='cpu')
    results = statistics, square, nonfinite, spikes
    _call('forward', ctypes.byref(layer), x, weight, bias, threshold, *results, scratch)
    return spikes, square, statistics, nonfinite


def statistics_of(statistics: Tensor, extrema: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what buffers follow.

    Args:
        statistics: As :func:`forward` returns them.
        extrema: Number of extrema of the layer, 1 or C.

    Returns:
        Mean and unbiased variance of the norm's input, (C,), without meaning where there is no norm;
        extremum and whether there is one (0 or 1), of shape (``extrema``,).
    """
    rows = statistics[:-_NUMBERS].view(_ROWS, -1).unbind()
    extremum, valid = rows[_EXTREMUM], rows[_VALID]
    if extrema == 1:
        extremum, valid = extremum[:1], valid[:1]
    return rows[_MEAN], rows[_VAR], extremum, valid


def fire(x: Tensor, level: Tensor, norm: tuple[Tensor, ...], eps: float) -> Tensor:
    """Run norm and neuron in evaluation.

    Args:
        x: As in :func:`forward`.
        level: Firing level in the units of the potential, float32, of shape (1,) or (C,).
        norm: Weight, bias, running mean and variance of the batch norm in front; empty without one.
        eps: That of the norm.

    Returns:
        Spikes (as ``x``).
    """
    a, c, b = as_blocks(x)
    layer = _Layer(a, c, b, _threads(a * c * b), bool(norm), len(level) > 1, eps=eps)
    spikes = torch.empty_like(x)
    _call('fire', ctypes.byref(layer), x, *(norm or (None,) * 4), level, x.new_empty(5 * c), spikes)
    return spikes


def backward(
    grad_spikes: Tensor | None,
    grad_square: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    threshold: Tensor,
    statistics: Tensor,
    settings: 'Settings',
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """Compute the gradients of :func:`forward`.

    Args:
        grad_spikes: Gradient of the spikes, of the layout of ``x``, or None.
        grad_square: Gradient of the Hoyer square, or None.
        x: As in :func:`forward`, and so the next three.
        weight: Weight of the norm.
        bias: Bias of the norm.
        threshold: Clip threshold.
        statistics: As :func:`forward` returned them.
        settings: Numbers.

    Returns:
        Gradients of ``x``, of weight and bias of the norm (None without one), and of the threshold.
    """
    layer = _layer(x, weight is not None, settings)
    grad, grad_threshold = torch.empty_like(x), torch.empty_like(threshold)
    grad_weight = grad_bias = None
    if weight is not None:
        grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(bias)
    scratch = torch.empty(3 * layer.C * layer.threads, dtype=torch.float64, device='cpu')
    _call(
        'backward',
        *(ctypes.byref(layer), grad_spikes, grad_square, x, weight, bias, threshold, statistics),
        *(grad, grad_weight, grad_bias, grad_threshold, scratch),
    )
    return grad, grad_weight, grad_bias, grad_threshold


def pack(x: Tensor) -> Tensor | None:
    """Return entries of 0 and 1 as bits, eight in a byte of uint8, in the order of their memory.

    Args:
        x: float32 without gaps in its memory.

    Returns:
        ``ceil(n / 8)`` bytes, the first entry as the highest bit; None if an entry is neither 0 nor 1.
    """
    count = x.numel()
    bits = torch.empty((count + 7) // 8, dtype=torch.uint8, device='cpu')
    return bits if _call('pack', x, bits, ctypes.c_int64(count), _threads(count)) else None


def unpack(bits: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the entries of bits (n,) as float32, the only ``dtype`` here, (8 * n,)."""
    flat = torch.empty(8 * len(bits), dtype=dtype, device='cpu')
    _call('unpack', bits, flat, ctypes.c_int64(len(bits)), _threads(len(flat)))
    return flat


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
    places = torch.empty(out.shape, dtype=torch.uint8, device='cpu')
    _call('max_pool', ctypes.byref(_window(x.shape, size, kernel, stride, padding)), x, out, places)
    return out, places


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
    _call('max_pool_backward', ctypes.byref(window), grad.contiguous(), places, out)
    return out


def _window(
    shape: torch.Size, size: Sequence[int], kernel: Pair, stride: Pair, padding: Pair
) -> _Window:
    planes = shape[0] * shape[1]
    threads = _threads(planes * shape[2] * shape[3])
    return _Window(planes, *shape[2:], *size, *kernel, *stride, *padding, threads)


def _threads(entries: int) -> int:
    return max(1, min(torch.get_num_threads(), entries // _SHARE))


def _call(name: str, *arguments: object) -> int:
    """Call a function of the library; tensors are handed over by their address."""
    return getattr(library(), name)(
        *(_Address(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments)
    )
