"""Max pooling on CUDA that keeps a byte for each output, as Triton kernels; functions as in ``cpu``.

A program has some places of one plane of a tensor (N, C, H, W), or for ``channels_last`` of one image,
whose places have C entries each. Steps, windows and padding are compiled in, sizes are not. The backward
pass gathers, so its sums do not depend on the order in which programs run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import Pair, pooled_size

# Entries of a window from which on unrolled loops get long.
LARGEST = 16
_BLOCK = 512
_SIZES = ['entries', 'H', 'W', 'OH', 'OW', 'tiles']


@triton.jit
def _places(tile, entries, width, LAST: tl.constexpr, BLOCK: tl.constexpr):
    """Return the number of each entry of a program, its channel, line and column."""
    at = tile * BLOCK + tl.arange(0, BLOCK)
    channel = at % entries if LAST else at * 0
    place = at // entries if LAST else at
    return at, channel, place // width, place % width


@triton.jit(do_not_specialize=_SIZES)
def _pool_kernel(
    x_ptr, out_ptr, places_ptr, entries, H, W, OH, OW, tiles, KH: tl.constexpr, KW: tl.constexpr,
    SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Find the largest entry of each window: the first of equal ones, and a NaN before all."""
    plane = (tl.program_id(0) // tiles).to(tl.int64)
    at, channel, line, column = _places(tl.program_id(0) % tiles, entries, OW, LAST, BLOCK)
    known = line < OH
    x_ptr += plane * H * W * entries
    best = tl.full([BLOCK], float('-inf'), tl.float32)
    place = tl.full([BLOCK], -1, tl.int32)
    for i in tl.static_range(KH):
        for j in tl.static_range(KW):
            h, w = line * SH - PH + i, column * SW - PW + j
            there = known & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            value = tl.load(x_ptr + (h * W + w) * entries + channel, mask=there, other=0.0)
            value = value.to(tl.float32)
            better = there & ((place < 0) | (value > best) | (value != value))
            best = tl.where(better, value, best)
            place = tl.where(better, i * KW + j, place)
    to = plane * OH * OW * entries + at
    tl.store(out_ptr + to, best.to(out_ptr.dtype.element_ty), mask=known)
    tl.store(places_ptr + to, place.to(tl.uint8), mask=known)


@triton.jit(do_not_specialize=_SIZES)
def _gradient_kernel(
    grad_ptr, places_ptr, out_ptr, entries, H, W, OH, OW, tiles, KH: tl.constexpr,
    KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add up, for each entry of the input, the gradients of the windows whose largest it is."""
    plane = (tl.program_id(0) // tiles).to(tl.int64)
    at, channel, line, column = _places(tl.program_id(0) % tiles, entries, W, LAST, BLOCK)
    known = line < H
    grad_ptr += plane * OH * OW * entries
    places_ptr += plane * OH * OW * entries
    total = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(KH):
        for j in tl.static_range(KW):
            h, w = line + PH - i, column + PW - j
            there = known & (h >= 0) & (w >= 0) & (h % SH == 0) & (w % SW == 0)
            there = there & (h // SH < OH) & (w // SW < OW)
            window = (h // SH * OW + w // SW) * entries + channel
            place = tl.load(places_ptr + window, mask=there, other=255).to(tl.int32)
            largest = there & (place == i * KW + j)
            total += tl.load(grad_ptr + window, mask=largest, other=0.0).to(tl.float32)
    to = plane * H * W * entries + at
    tl.store(out_ptr + to, total.to(out_ptr.dtype.element_ty), mask=known)


def _launch(
    kernel: triton.JITFunction,
    tensors: tuple[Tensor, ...],
    shape: torch.Size,
    size: torch.Size,
    per_program: int,
    window: tuple[Pair, Pair, Pair],
    last: bool,
) -> None:
    count, channels = shape[:2]
    planes, entries = (count, channels) if last else (count * channels, 1)
    tiles = triton.cdiv(per_program * entries, _BLOCK)
    with torch.cuda.device_of(tensors[0]):
        kernel[(planes * tiles,)](
            *tensors, entries, *shape[2:], *size, tiles, *(n for pair in window for n in pair),
            LAST=last, BLOCK=_BLOCK,
        )  # fmt: skip


def max_pool(
    x: Tensor, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    """Pool as :func:`hoyer_det.kernels.cpu.max_pool`, and ``channels_last`` as well.

    The window has at most ``LARGEST`` entries.
    """
    last = not x.is_contiguous()
    size = pooled_size(x.shape, kernel, stride, padding, ceil_mode)
    layout = torch.channels_last if last else torch.contiguous_format
    out = torch.empty(*x.shape[:2], *size, dtype=x.dtype, device=x.device, memory_format=layout)
    places = torch.empty_like(out, dtype=torch.uint8)
    window = kernel, stride, padding
    _launch(_pool_kernel, (x, out, places), x.shape, size, size[0] * size[1], window, last)
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
    """Fill ``out`` as :func:`hoyer_det.kernels.cpu.max_pool_backward`."""
    last = not out.is_contiguous()
    if grad.stride() != places.stride():
        grad = torch.empty_like(places, dtype=grad.dtype).copy_(grad)
    window, size = (kernel, stride, padding), places.shape[2:]
    tensors = grad, places, out
    _launch(_gradient_kernel, tensors, out.shape, size, out[0, 0].numel(), window, last)
    return out
