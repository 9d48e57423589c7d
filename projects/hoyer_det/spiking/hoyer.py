"""The two Hoyer quantities of a tensor of clipped membrane potentials."""

import torch
from torch import Tensor, distributed

Dims = int | list[int] | tuple[int, ...] | None


def power_sums(x: Tensor, dim: Dims = None, synchronise: bool = False) -> tuple[Tensor, Tensor]:
    """Sum ``x`` and ``x**2``, for ``x`` of at least 0, over ``dim``, in at least float32.

    Args:
        x: Tensor of any shape and floating type.
        dim: Dimension or dimensions summed over; all of them by default.
        synchronise: Whether to sum over all processes of a distributed run as well.

    Returns:
        The two sums, of the shape of ``x`` without ``dim``.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    sums = x.sum(dim), x.square().sum(dim)
    if synchronise and distributed.is_available() and distributed.is_initialized():
        from torch.distributed.nn.functional import all_reduce  # with gradients

        sums = all_reduce(torch.stack(sums)).unbind()
    return sums


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

    Example:
        >>> hoyer_square(torch.tensor([3.0, -4.0, 0.0]))  # 7 ** 2 / 25
        tensor(1.9600)
    """
    return square_of_sums(*power_sums(x.abs(), dim))


def square_of_sums(first: Tensor, second: Tensor) -> Tensor:
    """Return the Hoyer square of a tensor with the given :func:`power_sums`."""
    return first.square() / second.masked_fill(second == 0, 1.0)


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

    Example:
        >>> hoyer_extremum(torch.tensor([0.5, 1.0, 0.0]))  # 1.25 / 1.5
        tensor(0.8333)
    """
    first, second = power_sums(x.abs(), dim)
    return torch.where(second == 0, 1.0, second / first.masked_fill(second == 0, 1.0))
