"""The passes over a layer's tensors on CUDA, as Triton kernels; functions as in ``chunked``.

A tensor (A, C, B) without gaps is a matrix: (A * C, B) whose rows are channels of samples, or for
``channels_last``, where B is 1, (A, C) whose columns are channels. A program handles a tile of it.
Nothing waits for the device, and sizes are arguments of the kernels, so that no new kernel is compiled
for a new size of image.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .chunked import Affine, Sums

_TILE = 4096


@triton.jit
def _load_potential(
    x_ptr, mean_ptr, scale_ptr, shift_ptr, at, channel, inside, HAS_NORM: tl.constexpr
):
    """Return the potential of a tile and the normalised input, in float32."""
    x = tl.load(x_ptr + at, mask=inside, other=0.0)
    u = x.to(tl.float32)
    rest = u
    if HAS_NORM:
        rest = u - tl.load(mean_ptr + channel, mask=inside, other=0.0)
        u = rest * tl.load(scale_ptr + channel, mask=inside, other=0.0)
        u = u + tl.load(shift_ptr + channel, mask=inside, other=0.0)
        # As a norm would hand it on, which matters in half precision.
        u = u.to(x.dtype).to(tl.float32)
    return u, rest


@triton.jit
def _tile(rows, columns, channels, TILE_R: tl.constexpr, TILE_C: tl.constexpr, LAST: tl.constexpr):
    """Return where the entries of a tile lie, their channels, and which of them there are."""
    row = tl.program_id(0).to(tl.int64) * TILE_R + tl.arange(0, TILE_R)[:, None]
    column = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)[None, :]
    inside = (row < rows) & (column < columns)
    at = row * columns + column
    channel = (row * 0 + column) if LAST else (row % channels + column * 0)
    return at, channel, inside


@triton.jit
def _sums_kernel(
    x_ptr, mean_ptr, scale_ptr, shift_ptr, clip_ptr, out_ptr, rows, columns, channels,
    HAS_NORM: tl.constexpr, LAST: tl.constexpr, TILE_R: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    at, channel, inside = _tile(rows, columns, channels, TILE_R, TILE_C, LAST)
    u, _ = _load_potential(x_ptr, mean_ptr, scale_ptr, shift_ptr, at, channel, inside, HAS_NORM)
    clip = tl.load(clip_ptr)
    # Written so that a NaN stays one.
    clipped = tl.where(u < 0.0, 0.0, tl.where(u > clip, clip, u))
    clipped = tl.where(inside, clipped, 0.0)
    below = tl.where(u < clip, clipped, 0.0)
    odd = tl.where(inside & ((u - u) != 0.0), 1.0, 0.0)
    axis: tl.constexpr = 0 if LAST else 1
    # One line of partial sums for each row (or column) of the matrix and each tile along it.
    if LAST:
        line = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)
        lines, part, parts = columns, tl.program_id(0), tl.num_programs(0)
    else:
        line = tl.program_id(0) * TILE_R + tl.arange(0, TILE_R)
        lines, part, parts = rows, tl.program_id(1), tl.num_programs(1)
    to = out_ptr + part * lines + line
    step = parts * lines
    keep = line < lines
    tl.store(to, tl.sum(clipped, axis), mask=keep)
    tl.store(to + step, tl.sum(clipped * clipped, axis), mask=keep)
    tl.store(to + 2 * step, tl.sum(below, axis), mask=keep)
    tl.store(to + 3 * step, tl.sum(below * below, axis), mask=keep)
    tl.store(to + 4 * step, tl.sum(odd, axis), mask=keep)


@triton.jit
def _fire_kernel(
    x_ptr, mean_ptr, scale_ptr, shift_ptr, level_ptr, out_ptr, rows, columns, channels,
    HAS_NORM: tl.constexpr, LAST: tl.constexpr, PER_CHANNEL: tl.constexpr,
    TILE_R: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    at, channel, inside = _tile(rows, columns, channels, TILE_R, TILE_C, LAST)
    u, _ = _load_potential(x_ptr, mean_ptr, scale_ptr, shift_ptr, at, channel, inside, HAS_NORM)
    # One level for all is read again and again from the same place.
    level = tl.load(level_ptr + (channel if PER_CHANNEL else channel * 0), mask=inside, other=0.0)
    tl.store(out_ptr + at, (u >= level).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gradient_kernel(
    grad_ptr, x_ptr, mean_ptr, scale_ptr, shift_ptr, constants_ptr, out_ptr, sums_ptr,
    rows, columns, channels, HAS_NORM: tl.constexpr, LAST: tl.constexpr, HAS_GRAD: tl.constexpr,
    HAS_PULL: tl.constexpr, TILE_R: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    at, channel, inside = _tile(rows, columns, channels, TILE_R, TILE_C, LAST)
    u, rest = _load_potential(x_ptr, mean_ptr, scale_ptr, shift_ptr, at, channel, inside, HAS_NORM)
    grad = tl.zeros([TILE_R, TILE_C], tl.float32)
    if HAS_GRAD:
        window, height = tl.load(constants_ptr), tl.load(constants_ptr + 1)
        given = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
        grad += tl.where((u > 0.0) & (u <= window), given * height, 0.0)
    if HAS_PULL:
        clip = tl.load(constants_ptr + 2)
        slope, offset = tl.load(constants_ptr + 3), tl.load(constants_ptr + 4)
        grad += tl.where((u > 0.0) & (u <= clip), slope * u + offset, 0.0)
    grad = tl.where(inside, grad, 0.0)
    tl.store(out_ptr + at, grad.to(out_ptr.dtype.element_ty), mask=inside)
    axis: tl.constexpr = 0 if LAST else 1
    if LAST:
        line = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)
        lines, part, parts = columns, tl.program_id(0), tl.num_programs(0)
    else:
        line = tl.program_id(0) * TILE_R + tl.arange(0, TILE_R)
        lines, part, parts = rows, tl.program_id(1), tl.num_programs(1)
    to = sums_ptr + part * lines + line
    keep = line < lines
    # Without a norm the second sum is of the gradient times the potential.
    tl.store(to, tl.sum(grad, axis), mask=keep)
    tl.store(to + parts * lines, tl.sum(grad * rest, axis), mask=keep)


@triton.jit
def _norm_gradient_kernel(
    x_ptr, mean_ptr, scale_ptr, slope_ptr, offset_ptr, grad_ptr, rows, columns, channels,
    LAST: tl.constexpr, TILE_R: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    at, channel, inside = _tile(rows, columns, channels, TILE_R, TILE_C, LAST)
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + at, mask=inside, other=0.0)
    rest = x - tl.load(mean_ptr + channel, mask=inside, other=0.0)
    out = grad.to(tl.float32) * tl.load(scale_ptr + channel, mask=inside, other=0.0)
    out += rest * tl.load(slope_ptr + channel, mask=inside, other=0.0)
    out += tl.load(offset_ptr + channel, mask=inside, other=0.0)
    tl.store(grad_ptr + at, out.to(grad.dtype), mask=inside)


class _Layout:
    """How the tiles lie over a tensor (A, C, B)."""

    def __init__(self, x: Tensor) -> None:
        outer, self.channels, inner = x.shape
        self.last = inner == 1
        self.rows, self.columns = (outer, self.channels) if self.last else (
            outer * self.channels, inner
        )  # fmt: skip
        # Few widths, so few kernels. For `last` a tile sums over its rows, so it has many.
        self.tile_c = (
            64 if self.last or self.columns <= 64 else 256 if self.columns <= 512 else 1024
        )
        self.tile_r = _TILE // self.tile_c
        self.grid = triton.cdiv(self.rows, self.tile_r), triton.cdiv(self.columns, self.tile_c)
        self.sizes = self.rows, self.columns, self.channels
        self.tiles = dict(LAST=self.last, TILE_R=self.tile_r, TILE_C=self.tile_c)

    def partial(self, x: Tensor, number: int) -> Tensor:
        """Return room for partial sums, (number, parts, lines)."""
        lines, parts = (
            (self.columns, self.grid[0]) if self.last else (self.rows, self.grid[1])
        )  # fmt: skip
        return torch.empty(number, parts, lines, device=x.device)

    def per_channel(self, sums: Tensor) -> Tensor:
        """Add partial sums up to (number, C)."""
        return sums.sum(1, dtype=torch.float64).unflatten(-1, (-1, self.channels)).sum(1)


def _norm_arguments(x: Tensor, norm: Affine | None) -> tuple[Tensor, Tensor, Tensor]:
    if norm is None:
        return x, x, x  # never read
    return norm.mean, norm.weight * torch.rsqrt(norm.var + norm.eps), norm.bias


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and (biased) variance of each channel of ``x`` (A, C, B), by PyTorch's kernel."""
    return torch.ops.aten.batch_norm_update_stats(x, None, None, 0.0)


def clipped_sums(
    x: Tensor, norm: Affine | None, clip: Tensor, per_channel: bool, exclude: bool
) -> Sums:
    """Sum as :func:`hoyer_det.spiking.chunked.clipped_sums`."""
    layout = _Layout(x)
    out = layout.partial(x, 5)
    _sums_kernel[layout.grid](
        x, *_norm_arguments(x, norm), clip, out, *layout.sizes,
        HAS_NORM=norm is not None, **layout.tiles,
    )  # fmt: skip
    sums = layout.per_channel(out)
    finite = sums[4].sum() == 0
    if not per_channel:
        sums = sums.sum(1)
    sums = sums.float()
    return Sums(sums[0], sums[1], *((sums[2], sums[3]) if exclude else (sums[0], sums[1])), finite)


def fire(x: Tensor, norm: Affine | None, level: Tensor, spikes: Tensor) -> None:
    """Fire as :func:`hoyer_det.spiking.chunked.fire`."""
    layout = _Layout(x)
    _fire_kernel[layout.grid](
        x, *_norm_arguments(x, norm), level, spikes, *layout.sizes,
        HAS_NORM=norm is not None, PER_CHANNEL=level.numel() > 1, **layout.tiles,
    )  # fmt: skip


def gradient(
    grad_spikes: Tensor | None,
    x: Tensor,
    norm: Affine | None,
    clip: Tensor,
    box: tuple[Tensor, Tensor],
    pull: tuple[Tensor, Tensor] | None,
    grad: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute gradients as :func:`hoyer_det.spiking.chunked.gradient`."""
    layout = _Layout(x)
    sums = layout.partial(x, 2)
    constants = torch.stack([*box, clip, *(pull or (clip, clip))]).float()
    mean, scale, shift = _norm_arguments(x, norm)
    _gradient_kernel[layout.grid](
        x if grad_spikes is None else grad_spikes, x, mean, scale, shift, constants, grad, sums,
        *layout.sizes, HAS_NORM=norm is not None, HAS_GRAD=grad_spikes is not None,
        HAS_PULL=pull is not None, **layout.tiles,
    )  # fmt: skip
    sums = layout.per_channel(sums)
    if norm is None:
        return sums[1].sum().float(), None, None
    inverse = torch.rsqrt(norm.var.double() + norm.eps)
    grad_bias, grad_weight = sums[0], sums[1] * inverse
    product = torch.dot(grad_weight, norm.weight.double())
    product += torch.dot(grad_bias, norm.bias.double())
    total = x.size(0) * x.size(2)
    slope = (-scale * inverse * grad_weight / total).float()
    offset = (-scale * grad_bias / total).float()
    _norm_gradient_kernel[layout.grid](
        x, mean, scale, slope, offset, grad, *layout.sizes, **layout.tiles
    )
    return product.float(), grad_weight.float(), grad_bias.float()
