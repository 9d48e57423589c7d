"""The two Hoyer quantities of a tensor of clipped membrane potentials."""

import torch
from torch import Tensor

Dims = int | tuple[int, ...] | None


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which sums over a tensor of ``dtype`` are kept: never less than float32."""
    return torch.promote_types(dtype, torch.float32)


def absolute_sums(x: Tensor, dim: Dims = None) -> tuple[Tensor, Tensor]:
    """Sum ``|x|`` and ``x**2`` over ``dim``, in at least float32.

    Args:
        x: Tensor of any shape and floating type.
        dim: Dimension or dimensions summed over; all of them by default.

    Returns:
        The two sums, of the shape of ``x`` without ``dim``.
    """
    dtype = accumulation_dtype(x.dtype)
    x = x.to(dtype)
    return x.abs().sum(dim), x.square().sum(dim)


def hoyer_square(x: Tensor, dim: Dims = None) -> Tensor:
    r"""Hoyer square :math:`H(x) = (\sum_i |x_i|)^2 / \sum_i x_i^2`, a differentiable count of non-zeros.

    It lies between 1 (a single non-zero entry) and the number of entries (all equal), and does not
    change when ``x`` is scaled. Source: Datta, Liu and Beerel, arXiv 2212.10170; the
    measure is that of Yang, Wen and Li, "DeepHoyer", arXiv 1908.09979.

    Args:
        x: Tensor of any shape and floating type.
        dim: Dimension or dimensions summed over; all of them by default.

    Returns:
        ``H``, at least float32, of the shape of ``x`` without ``dim``; 0 where ``x`` is all zero.
    """
    first, second = absolute_sums(x, dim)
    empty = second == 0
    return first.square() / second.masked_fill(empty, 1.0)


def hoyer_extremum(x: Tensor, dim: Dims = None) -> Tensor:
    r"""Hoyer extremum :math:`E(x) = \sum_i x_i^2 / \sum_i |x_i|`, where the Hoyer square is stationary.

    :math:`\partial H / \partial x_i = 0` exactly at :math:`|x_i| = E(x)`: the regularizer pushes
    potentials away from it on both sides, which is why the neuron fires there. Source: arXiv
    2212.10170.

    Args:
        x: Tensor of any shape and floating type.
        dim: Dimension or dimensions summed over; all of them by default.

    Returns:
        ``E``, at least float32, of the shape of ``x`` without ``dim``. Where ``x`` is all zero there
        is no extremum and 1, the largest value that a clipped potential can have, is returned.
    """
    first, second = absolute_sums(x, dim)
    empty = second == 0
    return torch.where(empty, 1.0, second / first.masked_fill(empty, 1.0))
