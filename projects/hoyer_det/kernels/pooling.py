"""Max pooling that keeps a byte for each output instead of its input."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.utils import _pair

from .dispatch import Level, pooling_kernels


class LeanMaxPool2d(nn.MaxPool2d):
    """``MaxPool2d`` with the same outputs and gradients in a fraction of the memory.

    For its backward pass, PyTorch's own keeps the whole input, of which it needs the shape alone, and
    eight bytes for each output. Here it is one byte: which entry of its window was the largest.
    Where there are no kernels, or dilation, indices or windows of more than 256 entries are asked for,
    it is PyTorch's layer.

    Args:
        *args: As for ``nn.MaxPool2d``.
        kernels: Level of the implementation, see :func:`hoyer_det.kernels.set_kernels`.
        **kwargs: As for ``nn.MaxPool2d``.

    Example:
        >>> pooled = LeanMaxPool2d(2, ceil_mode=True)(torch.rand(1, 64, 75, 75, requires_grad=True))
    """

    kernels: Level = 'tested'

    def __init__(self, *args: Any, kernels: Level = 'tested', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        """Pool images or features (N, C, H, W)."""
        kernel, stride = _pair(self.kernel_size), _pair(self.stride)
        padding = _pair(self.padding)
        if (
            not (x.requires_grad and torch.is_grad_enabled())
            or x.dim() != 4
            or not x.numel()
            or self.return_indices
            or _pair(self.dilation) != (1, 1)
            # What PyTorch refuses, it shall refuse in its own words.
            or min(*kernel, *stride) < 1
            or any(not 0 <= 2 * p <= k for p, k in zip(padding, kernel, strict=True))
            or kernel[0] > x.size(2)
            or kernel[1] > x.size(3)
        ):
            return super().forward(x)
        kernels = pooling_kernels(self.kernels, x, kernel)
        if kernels is None:
            return super().forward(x)
        return _MaxPool.apply(x, kernels, kernel, stride, padding, self.ceil_mode)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: ModuleType, *window: Any) -> Tensor:
        last = not x.is_contiguous()
        ctx.window, ctx.like = window, dict(size=x.shape, dtype=x.dtype, device=x.device)
        ctx.like['memory_format'] = torch.channels_last if last else torch.contiguous_format
        ctx.kernels = kernels
        out, places = kernels.max_pool(x, *window)
        ctx.save_for_backward(places)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        out = torch.empty(**ctx.like)
        return ctx.kernels.max_pool_backward(grad, places, out, *ctx.window), *(None,) * 5
