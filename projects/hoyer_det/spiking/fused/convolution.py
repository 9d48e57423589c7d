"""A convolution that keeps the spikes it reads as bits and unpacks them few at a time."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.module import _has_any_global_hook

from .bits import PackedSpikes, packed_spikes

# Entries of input and output that the backward pass handles at a time, in whole images.
_SLICE = 1 << 22


def convolve(conv: nn.Module, x: Tensor) -> Tensor:
    """Return ``conv(x)``; where ``x`` are known spikes, with a backward pass in slices of the batch.

    The slices keep the floating point spikes, and the copies a convolution's backward pass makes, as
    small as a few images. They are used inside :func:`spikes_as_bits` for a plain ``Conv2d`` without
    hooks or autocast, and where the batch is large enough for more than one of them; all else is
    the ordinary call.

    Args:
        conv: Convolution.
        x: Its input, (N, C, H, W).
    """
    if (
        type(conv) is not nn.Conv2d
        or conv.padding_mode != 'zeros'
        or isinstance(conv.padding, str)
        or conv._forward_hooks
        or conv._forward_pre_hooks
        or conv._backward_hooks
        or conv._backward_pre_hooks
        or _has_any_global_hook()
        or 'forward' in vars(conv)
        or x.dim() != 4
        or x.numel() <= _SLICE
        or not torch.is_grad_enabled()
        or torch.is_autocast_enabled(x.device.type)
    ):
        return conv(x)
    packed = packed_spikes(x)
    if packed is None:
        return conv(x)
    settings = conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups
    return _SpikeConvolution.apply(x, conv.weight, conv.bias, packed, settings)


class _SpikeConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        packed: PackedSpikes,
        settings: tuple,
    ) -> Tensor:
        ctx.save_for_backward(packed.bits, weight)
        ctx.packed, ctx.settings = packed.without_bits(), settings
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        return torch.ops.aten.convolution(x, weight, bias, *settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bits, weight = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        images = grad.size(0)
        largest = max(ctx.packed.shape.numel(), grad.numel()) // images
        step = max(1, _SLICE // largest)
        grad_x = ctx.packed.empty(grad.device) if wanted[0] else None
        grad_weight = grad_bias = None
        for start in range(0, images, step):
            part = slice(start, min(start + step, images))
            x = ctx.packed.unpack(bits, part)
            part_x, part_weight, part_bias = torch.ops.aten.convolution_backward(
                grad[part], x, weight, ctx.bias_sizes, *ctx.settings, wanted
            )
            if wanted[0]:
                grad_x[part] = part_x
            if wanted[1]:
                grad_weight = part_weight if start == 0 else grad_weight.add_(part_weight)
            if wanted[2]:
                grad_bias = part_bias if start == 0 else grad_bias.add_(part_bias)
        return grad_x, grad_weight, grad_bias, None, None
