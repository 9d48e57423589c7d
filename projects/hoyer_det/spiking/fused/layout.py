"""How the entries of a tensor lie in memory."""

import torch
from torch import Tensor, nn


def as_blocks(x: Tensor) -> Tensor | None:
    """Return a view (A, C, B) without gaps in the order of memory, or None if there is none.

    It is (N, C, H * W), or (N * H * W, C, 1) for ``channels_last``.

    Args:
        x: Tensor (N, C, ...).
    """
    if x.dim() < 2 or not x.numel():
        return None
    if x.is_contiguous():
        return x.view(x.size(0), x.size(1), -1)
    moved = x.movedim(1, -1)
    return moved.view(-1, x.size(1), 1) if moved.is_contiguous() else None


def is_plain(x: Tensor) -> bool:
    """Tell whether a tensor has entries in memory of its own, rather than standing for another."""
    plain = type(x) in (Tensor, nn.Parameter) and x.layout == torch.strided
    return plain and x.device.type != 'meta' and not x.is_neg()


def readable(x: Tensor, count: int, *parameters: Tensor) -> bool:
    """Tell whether code that knows nothing but addresses can read the parameters beside ``x``.

    Args:
        x: Input of a layer.
        count: Entries that each parameter must have.
        *parameters: Parameters and buffers of the layer.
    """
    return all(
        is_plain(p)
        and p.device == x.device
        and p.dtype == torch.float32
        and p.is_contiguous()
        and p.numel() == count
        for p in parameters
    )
