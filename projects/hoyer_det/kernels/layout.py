"""How the entries of a tensor lie in memory."""

import torch
from torch import Tensor, nn

Pair = tuple[int, int]


def as_blocks(x: Tensor) -> tuple[int, int, int] | None:
    """Return the shape (A, C, B) of a tensor without gaps in the order of memory, None if it has gaps.

    It is (N, C, H * W), or (N * H * W, C, 1) for ``channels_last``.

    Args:
        x: Tensor (N, C, ...).
    """
    count = x.numel()
    if x.dim() < 2 or not count:
        return None
    if x.is_contiguous():
        n, c = x.shape[:2]
        return n, c, count // (n * c)
    if x.movedim(1, -1).is_contiguous():
        return count // x.size(1), x.size(1), 1
    return None


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
    device = x.device
    for p in parameters:
        plain = p.dtype == torch.float32 and p.device == device and is_plain(p)
        if not plain or p.numel() != count or not p.is_contiguous():
            return False
    return True


def pooled_size(
    shape: torch.Size, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool
) -> tuple[int, int]:
    """Return height and width of pooled features of a shape, as PyTorch counts."""
    sides = zip(shape[2:], kernel, stride, padding, strict=True)
    return tuple(_pooled(*side, ceil_mode) for side in sides)


def _pooled(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    rest = size + 2 * padding - kernel
    count = (-(-rest // stride) if ceil_mode else rest // stride) + 1
    # No window begins in the padding behind the end.
    return count - (ceil_mode and (count - 1) * stride >= size + padding)
