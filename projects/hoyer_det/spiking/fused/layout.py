"""How the entries of a tensor lie in memory."""

from torch import Tensor


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
