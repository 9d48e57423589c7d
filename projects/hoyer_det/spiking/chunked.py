"""The passes over a layer's tensors on CPU, in pieces that stay in the cache.

A pass of one tensor operation over a whole layer costs as much as the memory is slow. Here several
operations follow each other on a piece of the layer before the next piece is read, so that most of
them run at the speed of the cache. Everything is a view (A, C, B) without gaps, in the order of the
memory: (N, C, H * W), or (N * H * W, C, 1) for ``channels_last``.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Entries of a piece: four such pieces of float32 fit a level 2 cache of 2 MB.
_PIECE = 1 << 17
# Length from which a channel of a sample gets operations of its own, as one then does for two.
_ROW = 1 << 13
_NOTHING = torch.empty(0)


class Affine(NamedTuple):
    """What batch norm does to its input, ``(x - mean) / sqrt(var + eps) * weight + bias``.

    All are of shape (C,), of float32 and without gradient.
    """

    mean: Tensor
    var: Tensor
    eps: float
    weight: Tensor
    bias: Tensor


class Sums(NamedTuple):
    """Sums of a layer's clipped potentials, scalars or of shape (C,), in float32."""

    first: Tensor
    second: Tensor
    first_unsaturated: Tensor
    second_unsaturated: Tensor
    finite: Tensor


def as_blocks(x: Tensor) -> Tensor | None:
    """Return a view (A, C, B) without gaps in the order of memory, or None if there is none."""
    if x.dim() < 2 or not x.numel():
        return None
    if x.is_contiguous():
        return x.view(x.size(0), x.size(1), -1)
    moved = x.movedim(1, -1)
    return moved.view(-1, x.size(1), 1) if moved.is_contiguous() else None


def _channel_ranges(x: Tensor) -> list[slice]:
    _, channels, inner = x.shape
    step = max(1, _PIECE // inner)
    return [slice(c, c + step) for c in range(0, channels, step)]


def _pieces(x: Tensor, channels: slice) -> Iterator[tuple[slice, slice]]:
    """Yield where the pieces of a range of channels lie; each is without gaps."""
    size = x.size(1) * x.size(2)
    # Several samples together only where each has all its channels in one piece.
    step = max(1, _PIECE // size)
    for start in range(0, x.size(0), step):
        yield slice(start, start + step), channels


def _scratch(x: Tensor) -> Tensor:
    _, channels, inner = x.shape
    largest = max(_PIECE, inner)
    return x.new_empty(min(largest, x.numel()))


def _normalised(x: Tensor, norm: Affine, c: slice, out: Tensor, affine: bool = True) -> Tensor:
    weight, bias = (norm.weight[c], norm.bias[c]) if affine else (None, None)
    return _scaled(x, norm, c, weight, bias, out)


def _scaled(
    x: Tensor, norm: Affine, c: slice, weight: Tensor | None, bias: Tensor | None, out: Tensor
) -> Tensor:
    # The same operator as BatchNorm2d in evaluation mode, so that u comes out the same every time.
    return torch.native_batch_norm(
        x, weight, bias, norm.mean[c], norm.var[c], False, 0.0, norm.eps,
        out=(out, _NOTHING, _NOTHING),
    )[0]  # fmt: skip


def _potential(x: Tensor, norm: Affine | None, c: slice, scratch: Tensor) -> Tensor:
    if norm is None:
        return x
    return _normalised(x, norm, c, scratch[: x.numel()].view(x.shape))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and (biased) variance of each channel of ``x`` (A, C, B)."""
    scratch = _scratch(x)
    total = x.size(0) * x.size(2)
    mean, var = x.new_empty(x.size(1)), x.new_empty(x.size(1))
    for channels in _channel_ranges(x):
        counts, means, squares = [], [], []
        for at in _pieces(x, channels):
            piece = x[at]
            count = piece.size(0) * piece.size(2)
            middle = piece.sum((0, 2)) / count
            rest = scratch[: piece.numel()].view(piece.shape)
            torch.sub(piece, middle.view(1, -1, 1), out=rest)
            squares.append(rest.mul_(rest).sum((0, 2)))
            counts.append(count)
            means.append(middle)
        # Squares about each piece's own mean, brought together in float64: nothing cancels.
        weights = torch.tensor(counts, dtype=torch.float64).view(-1, 1)
        middles = torch.stack(means).double()
        middle = (middles * weights).sum(0) / total
        spread = torch.stack(squares).double().sum(0)
        spread += (weights * (middles - middle).square()).sum(0)
        mean[channels], var[channels] = middle, spread / total
    return mean, var


def clipped_sums(
    x: Tensor, norm: Affine | None, clip: Tensor, per_channel: bool, exclude: bool
) -> Sums:
    """Sum ``clip(u, 0, clip)`` and its square over the layer or over each channel.

    Args:
        x: Potential, or the input of the norm before it; (A, C, B).
        norm: That norm, None if ``x`` is the potential.
        clip: Clip threshold, a scalar tensor.
        per_channel: Whether to sum over each channel rather than over all.
        exclude: Whether the sums without the potentials at or above ``clip`` are wanted as well.
    """
    limit = clip.item()
    u_scratch, scratch = _scratch(x), _scratch(x)
    rows: list[list[Tensor]] = []
    for channels in _channel_ranges(x):
        parts = []
        for at in _pieces(x, channels):
            u = _potential(x[at], norm, channels, u_scratch)
            clipped = scratch[: u.numel()].view(u.shape)
            torch.clamp(u, 0.0, limit, out=clipped)
            sums = _two_sums(clipped, per_channel)
            if exclude:
                torch.ops.aten.hardtanh_backward.grad_input(u, u, 0.0, limit, grad_input=clipped)
                sums += _two_sums(clipped, per_channel)
            # An inf or NaN in the input of batch norm shows in the mean; here, in the sum.
            sums.append(norm.mean.sum() if norm is not None else u.sum())
            parts.append(torch.stack([s.expand_as(sums[0]) for s in sums]))
        rows.append(torch.stack(parts).double().sum(0))
    sums = torch.cat(rows, 1) if per_channel else torch.stack(rows).sum(0)
    sums = sums.float()
    return Sums(*sums[:2], *sums[-3:-1], torch.isfinite(sums[-1]).all())


def _two_sums(clipped: Tensor, per_channel: bool) -> list[Tensor]:
    """Sum a piece and its square; it may be overwritten."""
    if not per_channel:
        flat = clipped.view(-1)
        return [flat.sum(), torch.dot(flat, flat)]
    first = clipped.sum((0, 2))
    return [first, clipped.mul_(clipped).sum((0, 2))]


def fire(x: Tensor, norm: Affine | None, level: Tensor, spikes: Tensor) -> None:
    """Write 1 into ``spikes`` where the potential reaches ``level`` and 0 elsewhere.

    Args:
        x: Potential, or the input of the norm before it; (A, C, B).
        norm: That norm, None if ``x`` is the potential.
        level: Firing level of shape (1,) or (C,).
        spikes: Output, (A, C, B).
    """
    scratch = _scratch(x)
    for channels in _channel_ranges(x):
        reached = level if len(level) == 1 else level[channels].view(1, -1, 1)
        for at in _pieces(x, channels):
            u = _potential(x[at], norm, channels, scratch)
            torch.ge(u, reached, out=spikes[at])


def gradient(
    grad_spikes: Tensor | None,
    x: Tensor,
    norm: Affine | None,
    clip: Tensor,
    box: tuple[Tensor, Tensor],
    pull: tuple[Tensor, Tensor] | None,
    grad: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute the gradient of the potential, and through a norm that of its input.

    Args:
        grad_spikes: Gradient of the spikes, (A, C, B), or None.
        x: Potential, or the input of the norm before it; (A, C, B).
        norm: That norm, whose mean and variance are those of ``x``; None if ``x`` is the potential.
        clip: Clip threshold.
        box: Upper end and height of the surrogate gradient, in units of ``u``.
        pull: ``a`` and ``b`` of the Hoyer square's gradient ``a * u + b``, for ``0 < u <= clip``; None
            where it has none.
        grad: Output, gradient of ``x``; (A, C, B).

    Returns:
        Sum over the layer of the potential and its gradient's product; and where there is a norm, the
        gradients of its weight and bias.
    """
    window, height, edge = _above(box[0]), box[1].item(), _above(clip)
    slope, offset = (pull[0].item(), pull[1]) if pull is not None else (0.0, clip)
    u_scratch, scratch = _scratch(x), _scratch(x)
    total = x.size(0) * x.size(2)
    along = 0.0
    weights, biases = [], []
    masked = torch.ops.aten.hardtanh_backward.grad_input
    for channels in _channel_ranges(x):
        weight_parts, bias_parts = [], []
        for at in _pieces(x, channels):
            u = _potential(x[at], norm, channels, u_scratch)
            out, other = grad[at], scratch[: u.numel()].view(u.shape)
            if pull is not None:
                torch.add(offset, u, alpha=slope, out=other)
                target = out if grad_spikes is None else other
                masked(other, u, 0.0, edge, grad_input=target)
            if grad_spikes is not None:
                masked(grad_spikes[at], u, 0.0, window, grad_input=out)
                if pull is not None:
                    torch.add(other, out, alpha=height, out=out)
                else:
                    out.mul_(height)
            if norm is None:
                along += float(torch.dot(out.view(-1), u.view(-1)))
                continue
            bias_parts.append(out.sum((0, 2)))
            _normalised(x[at], norm, channels, other, affine=False)
            weight_parts.append(other.mul_(out).sum((0, 2)))
        if norm is None:
            continue
        # The gradient of batch norm: two more operations on the same channels.
        grad_weight = torch.stack(weight_parts).double().sum(0)
        grad_bias = torch.stack(bias_parts).double().sum(0)
        scale = norm.weight[channels] * torch.rsqrt(norm.var[channels] + norm.eps)
        slope_x = (-scale * grad_weight / total).float()
        offset_x = (-scale * grad_bias / total).float()
        for at in _pieces(x, channels):
            out, other = grad[at], scratch[: grad[at].numel()].view(grad[at].shape)
            _scaled(x[at], norm, channels, slope_x, offset_x, other)
            if x.size(2) < _ROW:
                out.mul_(scale.view(1, -1, 1)).add_(other)
                continue
            for row, rest, factor in zip(out[0], other[0], scale.tolist(), strict=True):
                torch.add(rest, row, alpha=factor, out=row)
        weights.append(grad_weight.float())
        biases.append(grad_bias.float())
    if norm is None:
        return torch.tensor(along), None, None
    grad_weight, grad_bias = torch.cat(weights), torch.cat(biases)
    product = torch.dot(grad_weight.double(), norm.weight.double())
    product += torch.dot(grad_bias.double(), norm.bias.double())
    return product.float(), grad_weight, grad_bias


def _above(value: Tensor) -> float:
    """Return the next larger float32: the operator that masks excludes its upper bound."""
    return torch.nextafter(value, value.new_tensor(torch.inf)).item()
