"""A convolution that keeps the spikes it reads as bits and unpacks them few at a time."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .dispatch import Level, neuron_kernels

# Entries from which on the memory is worth the work.
SMALLEST = 1 << 20
# Entries of input and output that the backward pass handles at a time, in whole images.
SLICE = 1 << 22


class SpikeConv2d(nn.Conv2d):
    """``Conv2d`` that keeps an input of 0 and 1 for its backward pass as bits.

    A 32nd of the memory of float32; and the backward pass works through a large batch in slices, so
    that the unpacked spikes are never all there at a time. Outputs and gradients are those of
    ``Conv2d``. On a CPU the input is looked at while it is packed, and kept as it is if it holds
    anything but 0 and 1. On CUDA that look would make the host wait, so ``reads_spikes`` tells.

    Args:
        *args: As for ``nn.Conv2d``.
        reads_spikes: Whether the layer before is certain to send 0 and 1.
        kernels: Level of the implementation, see :func:`hoyer_det.kernels.set_kernels`.
        **kwargs: As for ``nn.Conv2d``.

    Example:
        >>> conv = SpikeConv2d(64, 128, 3, padding=1, bias=False, reads_spikes=True)
    """

    kernels: Level = 'tested'

    def __init__(
        self, *args: Any, reads_spikes: bool = False, kernels: Level = 'tested', **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.reads_spikes = reads_spikes
        self.kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        """Convolve images or spikes (N, C, H, W)."""
        if (
            not (torch.is_grad_enabled() and self.weight.requires_grad)
            or torch.compiler.is_compiling()  # a comparison of sizes would compile twice
            or x.dim() != 4
            or x.numel() < SMALLEST
            or self.padding_mode != 'zeros'
            or isinstance(self.padding, str)
        ):
            return super().forward(x)
        weight, bias = self.weight, self.bias
        read = x
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            read, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        kernels = neuron_kernels(self.kernels, read)
        if kernels is None or not (self.reads_spikes or x.device.type == 'cpu'):
            return super().forward(x)
        bits = kernels.pack(read.detach())
        if bits is None:
            return super().forward(x)
        settings = self.stride, self.padding, self.dilation, False, (0, 0), self.groups
        return _BitConvolution.apply(read, weight, bias, bits, settings, kernels)


class _BitConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        bits: Tensor,
        settings: tuple,
        kernels: ModuleType,
    ) -> Tensor:
        ctx.save_for_backward(bits, weight)
        ctx.settings, ctx.kernels = settings, kernels
        ctx.input = x.shape, x.stride(), x.dtype
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        return torch.ops.aten.convolution(x, weight, bias, *settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bits, weight = ctx.saved_tensors
        shape, strides, dtype = ctx.input
        wanted = list(ctx.needs_input_grad[:3])
        images, size = grad.size(0), shape.numel() // grad.size(0)
        step = max(1, SLICE // max(size, grad.numel() // images))
        grad_x = grad_weight = grad_bias = None
        if wanted[0]:
            grad_x = torch.empty_strided(shape, strides, dtype=dtype, device=grad.device)
        for start in range(0, images, step):
            part = slice(start, min(start + step, images))
            # From the byte with the first entry to that with the last.
            first, last = part.start * size, part.stop * size
            flat = ctx.kernels.unpack(bits[first // 8 : (last + 7) // 8], dtype)
            x = flat.as_strided((part.stop - part.start, *shape[1:]), strides, first % 8)
            part_x, part_weight, part_bias = torch.ops.aten.convolution_backward(
                grad[part], x, weight, ctx.bias_sizes, *ctx.settings, wanted
            )
            if wanted[0]:
                grad_x[part] = part_x
            if wanted[1]:
                grad_weight = part_weight if start == 0 else grad_weight.add_(part_weight)
            if wanted[2]:
                grad_bias = part_bias if start == 0 else grad_bias.add_(part_bias)
        return grad_x, grad_weight, grad_bias, None, None, None
