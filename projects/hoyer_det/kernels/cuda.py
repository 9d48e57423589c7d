"""Norm and neuron and bits on CUDA, as Triton kernels; functions as in ``cpu``.

A tensor (A, C, B) without gaps is C matrices (A, B), one for each channel, or for ``channels_last``, where
B is 1, one matrix (A, C) whose columns are channels. A matrix is gone through in tiles: a program has a
channel, or a tile's width of them, and one or more steps along it. Nothing waits for the device, no sum
depends on the order in which programs run, and sizes are arguments of the kernels, so that no kernel is
compiled for a size.

In half precision the potential is rounded to it, as a norm would hand it on.
"""

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from .cpu import statistics_of as statistics_of
from .layout import as_blocks

if TYPE_CHECKING:
    from .neuron import Settings

_TILE = 2048
# Programs that a sum is shared out to, if it is large enough: some more than run at a time.
_PROGRAMS = 2048
# Channels or bytes that a program handles at a time where there are no tiles.
_BLOCK = 512

# Rows of the statistics, of C entries each (BETA is the norm's bias), and single numbers behind them:
# the layout of cpu.c.
_ALPHA, _BETA, _MEAN, _INVERSE, _LEVEL, _VAR, _EXTREMUM, _VALID = (
    tl.constexpr(i) for i in range(8)
)
_ROWS, _NUMBERS = 8, 2
_FIRST, _SECOND = (tl.constexpr(i) for i in range(2))

# A size that is 1 or a multiple of 16 would be compiled into a kernel of its own.
_SIZES = ['rows', 'units', 'channels', 'steps', 'share']


@triton.jit
def _program(channels, LAST: tl.constexpr, TILE_C: tl.constexpr):
    """Return which channel or tile of channels a program has, and which part of the steps."""
    # Neighbours run at about the same time: they are neighbours in memory as well.
    tiles = tl.cdiv(channels, TILE_C) if LAST else channels
    return tl.program_id(0) % tiles, tl.program_id(0) // tiles


@triton.jit
def _channels(tile, LAST: tl.constexpr, TILE_C: tl.constexpr):
    """Return the channels of a tile, one for each of its columns or one for all."""
    return (tile * TILE_C + tl.arange(0, TILE_C))[None, :] if LAST else tile


@triton.jit
def _entries(
    tile, step, rows, channels, columns, LAST: tl.constexpr, TILE_R: tl.constexpr,
    TILE_C: tl.constexpr,
):  # fmt: skip
    """Return where the entries of a tile lie in memory, and which of them there are."""
    across = tl.cdiv(columns, TILE_C)
    wide = tl.zeros([1, 1], tl.int64)  # there may be more than 2**31 entries
    row = (wide + (step if LAST else step // across)) * TILE_R + tl.arange(0, TILE_R)[:, None]
    column = (tile if LAST else step % across) * TILE_C + tl.arange(0, TILE_C)[None, :]
    inside = (row < rows) & (column < columns)
    return (row if LAST else row * channels + tile) * columns + column, inside


@triton.jit
def _norm(kept_ptr, channel, known, channels, HAS_NORM: tl.constexpr):
    """Return mean, alpha and beta of channels."""
    if HAS_NORM:
        mean = tl.load(kept_ptr + _MEAN * channels + channel, mask=known, other=0.0)
        alpha = tl.load(kept_ptr + _ALPHA * channels + channel, mask=known, other=0.0)
        beta = tl.load(kept_ptr + _BETA * channels + channel, mask=known, other=0.0)
        return mean, alpha, beta
    else:
        return 0.0, 1.0, 0.0


@triton.jit
def _potential(x_ptr, at, inside, mean, alpha, beta, HAS_NORM: tl.constexpr):
    """Return the potential, and the input without its mean, in float32."""
    x = tl.load(x_ptr + at, mask=inside, other=0.0)
    u = x.to(tl.float32)
    rest = u
    if HAS_NORM:
        rest = u - mean
        u = (rest * alpha + beta).to(x.dtype).to(tl.float32)
    return u, rest


@triton.jit
def _store_sum(to, values, known, LAST: tl.constexpr):
    """Store the sums of a tile over each of its channels."""
    total = tl.sum(values, axis=0, keep_dims=True) if LAST else tl.sum(values)
    tl.store(to, total.to(tl.float64), mask=known)


@triton.jit
def _shift(x_ptr, channel, known, columns, LAST: tl.constexpr):
    """Return the first entry of each channel: sums of what is near 0 keep their digits."""
    at = channel if LAST else channel.to(tl.int64) * columns
    return tl.load(x_ptr + at, mask=known, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=_SIZES)
def _moments_kernel(
    x_ptr, sums_ptr, rows, channels, units, steps, share, UNIT: tl.constexpr, LAST: tl.constexpr,
    TILE_R: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    """Sum the shifted input and its square."""
    columns = units * UNIT
    channels = columns if LAST else channels
    tile, part = _program(channels, LAST, TILE_C)
    channel = _channels(tile, LAST, TILE_C)
    known = channel < channels
    shift = _shift(x_ptr, channel, known, columns, LAST)
    first = tl.zeros([TILE_R, TILE_C], tl.float32)
    second = tl.zeros([TILE_R, TILE_C], tl.float32)
    for step in range(part * share, tl.minimum(part * share + share, steps)):
        at, inside = _entries(tile, step, rows, channels, columns, LAST, TILE_R, TILE_C)
        rest = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32) - shift
        rest = tl.where(inside, rest, 0.0)
        first += rest
        second += rest * rest
    to = sums_ptr + part * channels + channel
    _store_sum(to, first, known, LAST)
    _store_sum(to + tl.cdiv(steps, share) * channels, second, known, LAST)


@triton.jit(do_not_specialize=_SIZES)
def _sums_kernel(
    x_ptr, moments_ptr, weight_ptr, bias_ptr, threshold_ptr, kept_ptr, sums_ptr, rows, channels,
    units, steps, share, eps, count,
    EXCLUDE: tl.constexpr, UNIT: tl.constexpr, LAST: tl.constexpr,
    TILE_R: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    """Sum the clipped potentials; set up what the norm does."""
    HAS_NORM: tl.constexpr = weight_ptr is not None
    columns = units * UNIT
    channels = columns if LAST else channels
    tile, part = _program(channels, LAST, TILE_C)
    channel = _channels(tile, LAST, TILE_C)
    known = channel < channels
    mean, alpha, beta = 0.0, 1.0, 0.0
    if HAS_NORM:
        total = tl.load(moments_ptr + channel, mask=known, other=0.0)
        squares = tl.load(moments_ptr + channels + channel, mask=known, other=0.0)
        squares -= total * total / count
        mean = _shift(x_ptr, channel, known, columns, LAST) + (total / count).to(tl.float32)
        var = (squares / count).to(tl.float32)
        inverse = tl.rsqrt(var + eps)
        alpha = tl.load(weight_ptr + channel, mask=known, other=0.0) * inverse
        beta = tl.load(bias_ptr + channel, mask=known, other=0.0)
        if part == 0:
            tl.store(kept_ptr + _ALPHA * channels + channel, alpha, mask=known)
            tl.store(kept_ptr + _BETA * channels + channel, beta, mask=known)
            tl.store(kept_ptr + _MEAN * channels + channel, mean, mask=known)
            tl.store(kept_ptr + _INVERSE * channels + channel, inverse, mask=known)
            unbiased = (squares / (count - 1)).to(tl.float32)
            tl.store(kept_ptr + _VAR * channels + channel, unbiased, mask=known)

    clip = tl.abs(tl.load(threshold_ptr))
    first = tl.zeros([TILE_R, TILE_C], tl.float32)
    second = tl.zeros([TILE_R, TILE_C], tl.float32)
    nonfinite = tl.zeros([TILE_R, TILE_C], tl.float32)
    first_below = tl.zeros([TILE_R, TILE_C], tl.float32)
    second_below = tl.zeros([TILE_R, TILE_C], tl.float32)
    for step in range(part * share, tl.minimum(part * share + share, steps)):
        at, inside = _entries(tile, step, rows, channels, columns, LAST, TILE_R, TILE_C)
        u, _ = _potential(x_ptr, at, inside, mean, alpha, beta, HAS_NORM)
        # Written so that a NaN stays one.
        clipped = tl.where(u < 0.0, 0.0, tl.where(u > clip, clip, u))
        clipped = tl.where(inside, clipped, 0.0)
        first += clipped
        second += clipped * clipped
        nonfinite += u * 0.0  # NaN as soon as there is a NaN or inf
        if EXCLUDE:
            below = tl.where(u >= clip, 0.0, clipped)
            first_below += below
            second_below += below * below
    row = tl.cdiv(steps, share) * channels
    to = sums_ptr + part * channels + channel
    _store_sum(to, first, known, LAST)
    _store_sum(to + row, second, known, LAST)
    _store_sum(to + 2 * row, nonfinite, known, LAST)
    if EXCLUDE:
        _store_sum(to + 3 * row, first_below, known, LAST)
        _store_sum(to + 4 * row, second_below, known, LAST)


@triton.jit
def _level(first, second, clip, scale, to, channels, known, FIXED: tl.constexpr):
    """Return the firing level that follows from sums; store the extremum and whether there is one."""
    first, second = first.to(tl.float32), second.to(tl.float32)
    second = second + 0.0 * clip  # NaN where the threshold is
    valid = (second > 0.0) & (second < float('inf'))  # not if it is NaN
    extremum = tl.where(valid, 1.0 if FIXED else second / (first * clip), 1.0)
    tl.store(to + _EXTREMUM * channels, extremum, mask=known)
    tl.store(to + _VALID * channels, tl.where(valid, 1.0, 0.0), mask=known)
    return scale * clip * extremum


@triton.jit(do_not_specialize=_SIZES)
def _levels_kernel(
    sums_ptr, threshold_ptr, kept_ptr, report_ptr, square_ptr, nonfinite_ptr, channels, scale,
    PER_CHANNEL: tl.constexpr,
    FIXED: tl.constexpr, EXCLUDE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Turn the sums into firing levels and the report, in a single program."""
    clip = tl.abs(tl.load(threshold_ptr))
    counted_ptr = sums_ptr + 3 * channels if EXCLUDE else sums_ptr
    first = tl.zeros([BLOCK], tl.float64)
    second = tl.zeros([BLOCK], tl.float64)
    nonfinite = tl.zeros([BLOCK], tl.float64)
    counted_first = tl.zeros([BLOCK], tl.float64)
    counted_second = tl.zeros([BLOCK], tl.float64)
    for start in range(0, channels, BLOCK):
        c = start + tl.arange(0, BLOCK)
        known = c < channels
        first += tl.load(sums_ptr + c, mask=known, other=0.0)
        second += tl.load(sums_ptr + channels + c, mask=known, other=0.0)
        nonfinite += tl.load(sums_ptr + 2 * channels + c, mask=known, other=0.0)
        counted_first += tl.load(counted_ptr + c, mask=known, other=0.0)
        counted_second += tl.load(counted_ptr + channels + c, mask=known, other=0.0)

    total_first, total_second = tl.sum(first).to(tl.float32), tl.sum(second).to(tl.float32)
    square = total_first * total_first / tl.where(total_second == 0.0, 1.0, total_second)
    tl.store(report_ptr + _FIRST, total_first)
    tl.store(report_ptr + _SECOND, total_second)
    tl.store(square_ptr, square)
    tl.store(nonfinite_ptr, tl.where(tl.sum(nonfinite) != 0.0, 1.0, 0.0))

    if not PER_CHANNEL:
        level = _level(
            tl.sum(counted_first), tl.sum(counted_second), clip, scale, kept_ptr, channels,
            channels > 0, FIXED,
        )  # fmt: skip
    for start in range(0, channels, BLOCK):
        c = start + tl.arange(0, BLOCK)
        known = c < channels
        if PER_CHANNEL:
            level = _level(
                tl.load(counted_ptr + c, mask=known, other=0.0),
                tl.load(counted_ptr + channels + c, mask=known, other=0.0),
                clip, scale, kept_ptr + c, channels, known, FIXED,
            )  # fmt: skip
        tl.store(kept_ptr + _LEVEL * channels + c, level, mask=known)


@triton.jit(do_not_specialize=_SIZES)
def _fire_kernel(
    x_ptr, kept_ptr, spikes_ptr, rows, channels, units, HAS_NORM: tl.constexpr, UNIT: tl.constexpr,
    LAST: tl.constexpr, TILE_R: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    """Fire where the potential reaches the level of its channel."""
    columns = units * UNIT
    channels = columns if LAST else channels
    tile, step = _program(channels, LAST, TILE_C)
    channel = _channels(tile, LAST, TILE_C)
    known = channel < channels
    mean, alpha, beta = _norm(kept_ptr, channel, known, channels, HAS_NORM)
    level = tl.load(kept_ptr + _LEVEL * channels + channel, mask=known, other=0.0)
    at, inside = _entries(tile, step, rows, channels, columns, LAST, TILE_R, TILE_C)
    u, _ = _potential(x_ptr, at, inside, mean, alpha, beta, HAS_NORM)
    spikes = tl.where(u >= level, 1.0, 0.0)
    tl.store(spikes_ptr + at, spikes.to(spikes_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _shape(threshold_ptr, report_ptr, square_ptr, window, height):
    """Return clip, window and height of the spike's box, and the line of the Hoyer square."""
    clip = tl.abs(tl.load(threshold_ptr))
    slope, offset = 0.0, 0.0
    if square_ptr is not None:
        second = tl.load(report_ptr + _SECOND)
        ratio = tl.load(report_ptr + _FIRST) / tl.where(second == 0.0, 1.0, second)
        offset = tl.where(second == 0.0, 0.0, 2.0 * ratio * tl.load(square_ptr))
        slope = -offset * ratio
    return clip, window * clip, tl.where(clip > 0.0, height / clip, 0.0), slope, offset


@triton.jit
def _gradient(u, at, inside, grad_ptr, square_ptr, clip, window, height, slope, offset):
    """Return the gradient of the potential: the box of the spike and the Hoyer square's line."""
    grad = tl.zeros_like(u)
    if grad_ptr is not None:
        given = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
        grad += tl.where((u > 0.0) & (u <= window), height * given, 0.0)
    if square_ptr is not None:
        grad += tl.where((u >= 0.0) & (u <= clip), slope * u + offset, 0.0)
    return grad


@triton.jit(do_not_specialize=_SIZES)
def _gradient_sums_kernel(
    grad_ptr, square_ptr, x_ptr, threshold_ptr, kept_ptr, report_ptr, out_ptr, sums_ptr,
    rows, channels, units, steps, share, window, height, UNIT: tl.constexpr, LAST: tl.constexpr,
    TILE_R: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    """Sum the potential's gradient, alone and times the input; write it where there is no norm."""
    HAS_NORM: tl.constexpr = out_ptr is None
    columns = units * UNIT
    channels = columns if LAST else channels
    tile, part = _program(channels, LAST, TILE_C)
    channel = _channels(tile, LAST, TILE_C)
    known = channel < channels
    mean, alpha, beta = _norm(kept_ptr, channel, known, channels, HAS_NORM)
    clip, window, height, slope, offset = _shape(
        threshold_ptr, report_ptr, square_ptr, window, height
    )
    product = tl.zeros([TILE_R, TILE_C], tl.float32)
    total = tl.zeros([TILE_R, TILE_C], tl.float32)
    for step in range(part * share, tl.minimum(part * share + share, steps)):
        at, inside = _entries(tile, step, rows, channels, columns, LAST, TILE_R, TILE_C)
        u, rest = _potential(x_ptr, at, inside, mean, alpha, beta, HAS_NORM)
        grad = _gradient(
            u, at, inside, grad_ptr, square_ptr, clip, window, height, slope, offset
        )  # fmt: skip
        grad = tl.where(inside, grad, 0.0)
        product += grad * rest
        if HAS_NORM:
            total += grad
        else:
            tl.store(out_ptr + at, grad.to(out_ptr.dtype.element_ty), mask=inside)
    to = sums_ptr + part * channels + channel
    _store_sum(to, product, known, LAST)
    if HAS_NORM:
        _store_sum(to + tl.cdiv(steps, share) * channels, total, known, LAST)


@triton.jit(do_not_specialize=_SIZES)
def _parameters_kernel(
    sums_ptr, weight_ptr, bias_ptr, threshold_ptr, kept_ptr, grad_weight_ptr, grad_bias_ptr,
    grad_threshold_ptr, channels, BLOCK: tl.constexpr,
):  # fmt: skip
    """Turn the sums into the gradients of norm and threshold, in a single program."""
    along = tl.zeros([BLOCK], tl.float64)
    for start in range(0, channels, BLOCK):
        c = start + tl.arange(0, BLOCK)
        known = c < channels
        product = tl.load(sums_ptr + c, mask=known, other=0.0)
        if weight_ptr is not None:
            product *= tl.load(kept_ptr + _INVERSE * channels + c, mask=known, other=0.0)
            total = tl.load(sums_ptr + channels + c, mask=known, other=0.0)
            tl.store(grad_weight_ptr + c, product.to(tl.float32), mask=known)
            tl.store(grad_bias_ptr + c, total.to(tl.float32), mask=known)
            product *= tl.load(weight_ptr + c, mask=known, other=0.0)
            product += total * tl.load(bias_ptr + c, mask=known, other=0.0)
        along += product
    # Spikes and Hoyer square depend on u and v through u / |v| alone, so u du + v dv = 0.
    threshold = tl.load(threshold_ptr)
    grad = tl.where(threshold == 0.0, 0.0, -tl.sum(along) / threshold)
    tl.store(grad_threshold_ptr, grad.to(tl.float32))


@triton.jit(do_not_specialize=_SIZES)
def _norm_gradient_kernel(
    grad_ptr, square_ptr, x_ptr, weight_ptr, bias_ptr, threshold_ptr, kept_ptr, report_ptr,
    sums_ptr, out_ptr, grad_weight_ptr, grad_bias_ptr, grad_threshold_ptr, rows, channels, units, count,
    window, height, BLOCK: tl.constexpr, UNIT: tl.constexpr, LAST: tl.constexpr,
    TILE_R: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of the norm's input, and in the first program those of parameters."""
    columns = units * UNIT
    channels = columns if LAST else channels
    if tl.program_id(0) == 0:
        # While the others are busy.
        _parameters_kernel(
            sums_ptr, weight_ptr, bias_ptr, threshold_ptr, kept_ptr, grad_weight_ptr,
            grad_bias_ptr, grad_threshold_ptr, channels, BLOCK,
        )  # fmt: skip
    tile, step = _program(channels, LAST, TILE_C)
    channel = _channels(tile, LAST, TILE_C)
    known = channel < channels
    mean, alpha, beta = _norm(kept_ptr, channel, known, channels, True)
    inverse = tl.load(kept_ptr + _INVERSE * channels + channel, mask=known, other=0.0)
    product = tl.load(sums_ptr + channel, mask=known, other=0.0).to(tl.float32)
    total = tl.load(sums_ptr + channels + channel, mask=known, other=0.0).to(tl.float32)
    norm_slope = -alpha * inverse * inverse * product / count
    norm_offset = -alpha * total / count
    clip, window, height, slope, offset = _shape(
        threshold_ptr, report_ptr, square_ptr, window, height
    )
    at, inside = _entries(tile, step, rows, channels, columns, LAST, TILE_R, TILE_C)
    u, rest = _potential(x_ptr, at, inside, mean, alpha, beta, True)
    grad = _gradient(
        u, at, inside, grad_ptr, square_ptr, clip, window, height, slope, offset
    )  # fmt: skip
    out = grad * alpha + rest * norm_slope + norm_offset
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=['units'])
def _pack_kernel(flat_ptr, bits_ptr, units, UNIT: tl.constexpr, BLOCK: tl.constexpr):
    count = units * UNIT
    byte = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    bit = tl.arange(0, 8)[None, :]
    at = byte[:, None] * 8 + bit
    entries = tl.load(flat_ptr + at, mask=at < count, other=0.0)
    bits = tl.sum((entries != 0.0).to(tl.int32) << (7 - bit), axis=1)
    tl.store(bits_ptr + byte, bits.to(tl.uint8), mask=byte * 8 < count)


# Bits of single images begin anywhere.
@triton.jit(do_not_specialize=['count'], do_not_specialize_on_alignment=['bits_ptr'])
def _unpack_kernel(bits_ptr, flat_ptr, count, BLOCK: tl.constexpr):
    byte = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    bit = tl.arange(0, 8)[None, :]
    bits = tl.load(bits_ptr + byte, mask=byte < count, other=0).to(tl.int32)
    entries = ((bits >> (7 - bit)) & 1).to(tl.float32)
    entries = entries.to(flat_ptr.dtype.element_ty)  # Triton's interpreter takes this way only
    tl.store(flat_ptr + byte * 8 + bit, entries, mask=byte < count)


class _Tiles:
    """How the tiles lie over a tensor.

    Args:
        x: Tensor (N, C, ...) without gaps.
    """

    def __init__(self, x: Tensor) -> None:
        outer, channels, inner = as_blocks(x)
        last = inner == 1
        columns = channels if last else inner

        def steps(width: int) -> int:
            across = 1 if last else triton.cdiv(columns, width)
            return triton.cdiv(outer, _TILE // width) * across

        # Few widths, so few kernels; the one with the least beyond the end.
        width = 64 if last else min((2048, 512, 64), key=steps)
        self.tiles = triton.cdiv(channels, width) if last else channels
        self.steps = steps(width)
        # Steps of a program that sums.
        self.share = max(1, self.tiles * self.steps // _PROGRAMS)
        self.parts = triton.cdiv(self.steps, self.share)
        self.channels, self.count = channels, outer * inner
        unit = _unit(x, columns)
        self.sizes = outer, channels, columns // unit
        self.options = dict(UNIT=unit, LAST=last, TILE_R=_TILE // width, TILE_C=width)
        # Entries that are read one by one need an address each: fewer of them to a thread.
        self.options['num_warps'] = 8 if unit == 1 else 4

    def empty_sums(self, number: int, device: torch.device) -> Tensor:
        """Return room for partial sums, (number, parts, C)."""
        return torch.empty(number, self.parts, self.channels, dtype=torch.float64, device=device)


def _unit(x: Tensor, count: int) -> int:
    """Return how many entries are read at once, if a count of entries is a multiple of that."""
    unit = 16 // x.element_size()
    return 1 if count % unit else unit


def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, threshold: Tensor, settings: 'Settings'
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run norm and neuron in training: :func:`hoyer_det.kernels.cpu.forward`.

    ``x`` may be in half precision, too.
    """
    tiles, exclude = _Tiles(x), settings.exclude
    spikes = torch.empty_like(x)
    statistics = x.new_empty(_ROWS * tiles.channels + _NUMBERS, dtype=torch.float32)
    square, nonfinite = statistics.new_empty(()), statistics.new_empty(())
    numbers = statistics[-_NUMBERS:]
    sums = tiles.empty_sums(5 if exclude else 3, x.device)
    moments = None
    # Kernels run on the current device. Numbers are floats, as integers may be compiled in.
    with torch.cuda.device_of(x):
        if weight is not None:
            moments = tiles.empty_sums(2, x.device)
            _moments_kernel[(tiles.tiles * tiles.parts,)](
                x, moments, *tiles.sizes, tiles.steps, tiles.share, **tiles.options
            )
            moments = moments.sum(1)
        _sums_kernel[(tiles.tiles * tiles.parts,)](
            x, moments, weight, bias, threshold, statistics, sums, *tiles.sizes, tiles.steps,
            tiles.share, float(settings.eps), float(tiles.count), EXCLUDE=exclude, **tiles.options,
        )  # fmt: skip
        _levels_kernel[(1,)](
            sums.sum(1), threshold, statistics, numbers, square, nonfinite, tiles.channels,
            float(settings.scale),
            PER_CHANNEL=settings.extremum == 'channel', FIXED=settings.extremum == 'fixed',
            EXCLUDE=exclude, BLOCK=_BLOCK,
        )  # fmt: skip
        _fire_kernel[(tiles.tiles * tiles.steps,)](
            x, statistics, spikes, *tiles.sizes, HAS_NORM=weight is not None, **tiles.options
        )
    return spikes, square, statistics, nonfinite


def fire(x: Tensor, level: Tensor, norm: tuple[Tensor, ...], eps: float) -> Tensor:
    """Run norm and neuron in evaluation: :func:`hoyer_det.kernels.cpu.fire`.

    ``x`` may be in half precision, too.
    """
    tiles = _Tiles(x)
    kept = level.new_empty(5, tiles.channels)
    kept[_LEVEL.value] = level
    if norm:
        weight, kept[_BETA.value], kept[_MEAN.value], var = norm
        torch.mul(weight, torch.rsqrt(var + eps), out=kept[_ALPHA.value])
    spikes = torch.empty_like(x)
    with torch.cuda.device_of(x):
        _fire_kernel[(tiles.tiles * tiles.steps,)](
            x, kept, spikes, *tiles.sizes, HAS_NORM=bool(norm), **tiles.options
        )
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
    """Compute the gradients of :func:`forward`: :func:`hoyer_det.kernels.cpu.backward`.

    The gradient of ``x`` is of its type, all others are float32.
    """
    tiles, numbers = _Tiles(x), statistics[-_NUMBERS:]
    grad, grad_threshold = torch.empty_like(x), torch.empty_like(threshold)
    grad_weight = grad_bias = None
    if weight is not None:
        grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(bias)
    window, height = float(settings.window), float(settings.height)
    given = grad_spikes, grad_square, x
    own = threshold, statistics, numbers
    parameters = grad_weight, grad_bias, grad_threshold
    sums = tiles.empty_sums(1 if weight is None else 2, x.device)
    with torch.cuda.device_of(x):
        _gradient_sums_kernel[(tiles.tiles * tiles.parts,)](
            *given, *own, grad if weight is None else None, sums, *tiles.sizes, tiles.steps,
            tiles.share, window, height, **tiles.options,
        )  # fmt: skip
        sums = sums.sum(1)
        if weight is None:
            _parameters_kernel[(1,)](
                sums, weight, bias, threshold, statistics, *parameters, tiles.channels, BLOCK=_BLOCK
            )
        else:
            _norm_gradient_kernel[(tiles.tiles * tiles.steps,)](
                *given, weight, bias, *own, sums, grad, *parameters, *tiles.sizes,
                float(tiles.count), window, height, BLOCK=_BLOCK, **tiles.options,
            )  # fmt: skip
    return grad, grad_weight, grad_bias, grad_threshold


def pack(x: Tensor) -> Tensor:
    """Return entries of 0 and 1 as bits: :func:`hoyer_det.kernels.cpu.pack`, without the check."""
    count, bits = x.numel(), x.new_empty((x.numel() + 7) // 8, dtype=torch.uint8)
    unit = 1 if count % 8 else 8
    with torch.cuda.device_of(x):
        _pack_kernel[(triton.cdiv(len(bits), _BLOCK),)](
            x, bits, count // unit, UNIT=unit, BLOCK=_BLOCK
        )
    return bits


def unpack(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the entries of bits (n,), (8 * n,) of 0 and 1 of a type."""
    flat = bits.new_empty(8 * len(bits), dtype=dtype)
    with torch.cuda.device_of(bits):
        _unpack_kernel[(triton.cdiv(len(bits), _BLOCK),)](bits, flat, len(bits), BLOCK=_BLOCK)
    return flat
