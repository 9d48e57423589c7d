"""Max pooling that keeps a byte for each output instead of its input."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.utils import _pair

from ..spiking import HoyerSpike, mark_spikes
from ..spiking.fused.bits import are_spikes
from ..spiking.fused.switch import fusing, pooling_for


class LeanMaxPool2d(nn.MaxPool2d):
    """``MaxPool2d`` with the same outputs and gradients in a fraction of the memory.

    For its backward pass, PyTorch's own keeps the whole input, of which it needs the shape alone, and
    eight bytes for each output. Here it is one byte: which entry of its window was the largest.
    Arguments and behaviour are those of ``nn.MaxPool2d``; where dilation, indices or windows of more
    than 256 entries are asked for, it is that layer.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pool images or features (N, C, H, W)."""
        kernel, stride = _pair(self.kernel_size), _pair(self.stride)
        padding = _pair(self.padding)
        if (
            not fusing(x)
            or not (x.requires_grad and torch.is_grad_enabled())
            or x.dim() != 4
            or not x.numel()
            or self.return_indices
            or _pair(self.dilation) != (1, 1)
            or kernel[0] * kernel[1] > 256
            # What PyTorch refuses, it shall refuse in its own words.
            or min(*kernel, *stride) < 1
            or any(not 0 <= 2 * p <= k for p, k in zip(padding, kernel, strict=True))
            or kernel[0] > x.size(2)
            or kernel[1] > x.size(3)
        ):
            return super().forward(x)
        out = _MaxPool.apply(x, kernel, stride, padding, self.ceil_mode)
        return mark_spikes(out) if are_spikes(x) else out


def build_max_pool(act_cfg: dict[str, Any], *args: Any, **kwargs: Any) -> nn.MaxPool2d:
    """Build max pooling: lean in a spiking network, PyTorch's own in a twin.

    Args:
        act_cfg: Config of the network's activations.
        *args: As for ``nn.MaxPool2d``.
        **kwargs: As for ``nn.MaxPool2d``.
    """
    spiking = act_cfg['type'] in ('HoyerSpike', HoyerSpike)
    return (LeanMaxPool2d if spiking else nn.MaxPool2d)(*args, **kwargs)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *window: Any) -> Tensor:
        last = not x.is_contiguous()
        ctx.window, ctx.like = window, dict(size=x.shape, dtype=x.dtype, device=x.device)
        ctx.like['memory_format'] = torch.channels_last if last else torch.contiguous_format
        ctx.passes = pooling_for(x, window[0])
        max_pool = _max_pool if ctx.passes is None else ctx.passes.max_pool
        out, places = max_pool(x, *window)
        ctx.save_for_backward(places)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        like = torch.empty(**ctx.like)
        backward = _max_pool_backward if ctx.passes is None else ctx.passes.max_pool_backward
        return backward(grad, places, like, *ctx.window), None, None, None, None


Window = tuple[int, int]


def _max_pool(
    x: Tensor, kernel: Window, stride: Window, padding: Window, ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    """Return the maxima and which entry of its window each is, by PyTorch's own pooling."""
    out, indices = torch.ops.aten.max_pool2d_with_indices(
        x, kernel, stride, padding, [1, 1], ceil_mode
    )
    # A position is counted from its window's corner on: line * width + column, column < kernel.
    width = x.size(3)
    places = indices.to(torch.int32).sub_(_corners(indices, stride, padding, width).int())
    _restep(places, width, kernel[1], kernel[0])
    return out, places.to(torch.uint8)


def _max_pool_backward(
    grad: Tensor,
    places: Tensor,
    like: Tensor,
    kernel: Window,
    stride: Window,
    padding: Window,
    ceil_mode: bool,
) -> Tensor:
    """Return the gradient of the input; of ``like`` only shape and layout are read."""
    width = like.size(3)
    indices = _restep(places.to(torch.int32), kernel[1], width, kernel[0])
    indices = indices + _corners(places, stride, padding, width)
    return torch.ops.aten.max_pool2d_with_indices_backward(
        grad, like, kernel, stride, padding, [1, 1], ceil_mode, indices
    )


def _corners(places: Tensor, stride: Window, padding: Window, width: int) -> Tensor:
    """Return the position in the input of each window's first entry, shape (H', W')."""
    rows = torch.arange(places.size(2), device=places.device) * stride[0] - padding[0]
    columns = torch.arange(places.size(3), device=places.device) * stride[1] - padding[1]
    return rows.view(-1, 1) * width + columns


def _restep(places: Tensor, step: int, new_step: int, lines: int) -> Tensor:
    """Change in place the step from line to line by which positions in a window are counted."""
    # Comparisons, because a division of integers costs more than the pooling.
    line = (places >= step).to(places.dtype)
    for number in range(2, lines):
        line += places >= number * step
    return places.add_(line, alpha=new_step - step)
