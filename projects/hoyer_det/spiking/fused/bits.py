"""Spikes kept for the backward pass as single bits instead of floating point numbers."""

import copy
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.weak import WeakTensorKeyDictionary

from . import build, cpu
from .layout import as_blocks, is_plain
from .switch import cuda_passes, fusing, fusing_anywhere

# Spikes that may be kept as bits, by the address of their data, while they are alive.
_spikes: 'weakref.WeakValueDictionary[int, Tensor]' = weakref.WeakValueDictionary()
# What is known of them. Not on the tensors themselves, with which it would be saved.
_marks = WeakTensorKeyDictionary()


class PackedSpikes:
    """Spikes as bits in the order of their memory, eight in a byte, the first as the highest.

    Args:
        spikes: Tensor of 0 and 1 without gaps in its memory.
    """

    def __init__(self, spikes: Tensor) -> None:
        self.shape, self.strides, self.dtype = spikes.shape, spikes.stride(), spikes.dtype
        flat = spikes.detach().as_strided((spikes.numel(),), (1,))
        self.bits = _pack(flat)

    def without_bits(self) -> 'PackedSpikes':
        """Return what :meth:`unpack` needs when the bits are kept elsewhere."""
        other = copy.copy(self)
        other.bits = None
        return other

    def empty(self, device: torch.device) -> Tensor:
        """Return an uninitialised tensor of the shape, strides and type of the spikes."""
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=device)

    def unpack(self, bits: Tensor | None = None, images: slice | None = None) -> Tensor:
        """Return the spikes, of their first shape, strides, type and device.

        Args:
            bits: Where the bits are by now, if not in ``self.bits``.
            images: Entries of the first dimension that are wanted, all by default.
        """
        bits = self.bits if bits is None else bits
        size, first, count = self.strides[0], 0, self.shape[0]
        if images is not None:
            first, count = images.start, images.stop - images.start
        elif len(self.shape) == 1 or size * count != self.shape.numel():
            # The first dimension is not the outermost in memory.
            size, first, count = self.shape.numel(), 0, 1
        # From the byte with the first entry to that with the last.
        start = first * size
        part = bits[start // 8 : (start + count * size + 7) // 8]
        flat = _unpack(part, self.dtype)
        shape = self.shape if images is None else (count, *self.shape[1:])
        return flat.as_strided(shape, self.strides, start % 8)


@dataclass
class _Mark:
    """Version of marked spikes, and their bits once a layer wanted to keep them."""

    version: int
    packed: PackedSpikes | None = None


def mark_spikes(spikes: Tensor) -> Tensor:
    """Declare a tensor to hold nothing but 0 and 1, so that :func:`spikes_as_bits` may pack it.

    Args:
        spikes: Tensor of any shape. It may be written to where autograd sees it, and is then kept as
            it is; not behind its back, through ``.data`` or NumPy.

    Returns:
        The same tensor.
    """
    if fusing(spikes) and spikes.requires_grad and as_blocks(spikes) is not None and _bits_wanted():
        _marks[spikes] = _Mark(spikes._version)
        _spikes[spikes.data_ptr()] = spikes
    return spikes


def spikes_as_bits() -> Any:
    """Return a context in which autograd keeps spikes as bits, a 32nd of the memory of float32.

    Inside, whatever a convolution or pooling saves for its backward pass and is the output of a
    ``HoyerSpike``, itself and unchanged, is packed to bits; the layers that read the same spikes
    share them. All other tensors are kept as ever, so the context is safe around any code, and hooks
    that are there already, such as ``save_on_cpu``, get all there is to keep. The gradients are the
    same. Where ``torch.compile`` traces, or gradients are off, it does nothing. Transforms of
    ``torch.func`` refuse to run inside, as inside all such hooks.

    Example::

        with spikes_as_bits():
            losses = detector(images, samples, mode='loss')
    """
    if not fusing_anywhere() or not torch.is_grad_enabled() or _bits_wanted():
        return nullcontext()
    return saved_tensors_hooks(*_hooks(_top_hooks()))


def keeps_bits(forward: Callable) -> Callable:
    """Decorate the ``forward`` of a module so that it runs in :func:`spikes_as_bits`."""

    @wraps(forward)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return forward(self, *args, **kwargs)
        with spikes_as_bits():
            return forward(self, *args, **kwargs)

    return wrapped


def _top_hooks() -> tuple[Callable, Callable] | None:
    return torch._C._autograd._top_saved_tensors_default_hooks(False)


def _bits_wanted() -> bool:
    """Tell whether autograd would hand a saved tensor to this module's hook."""
    # Gradient checkpointing puts hooks of its own on top, and only the topmost are called.
    hooks = _top_hooks()
    return hooks is not None and getattr(hooks[0], 'keeps_bits', False)


def _hooks(outer: tuple[Callable, Callable] | None) -> tuple[Callable, Callable]:
    """Return the hooks that pack and unpack, on top of others or of none."""
    outer_keep, outer_restore = outer or (_same, _same)

    def keep(tensor: Tensor) -> Any:
        packed = _packed(tensor)
        if packed is None:
            return None, outer_keep(tensor), tensor._version
        return packed.without_bits(), outer_keep(packed.bits), None

    def restore(kept: tuple[PackedSpikes | None, Any, int | None]) -> Tensor:
        packed, inner, version = kept
        inner = outer_restore(inner)
        if packed is not None:
            return packed.unpack(inner)
        # Autograd leaves this check to the hooks.
        if outer is None and inner._version != version:
            raise RuntimeError(
                f'a tensor of shape {tuple(inner.shape)} that the backward pass needs was modified by an '
                'in-place operation after the forward pass had kept it'
            )
        return inner

    keep.keeps_bits = True
    return keep, restore


def packed_spikes(x: Tensor) -> PackedSpikes | None:
    """Return the bits of a tensor inside :func:`spikes_as_bits`; None if it is not known as spikes.

    Args:
        x: Tensor that may be the output of a ``HoyerSpike``.
    """
    return _packed(x) if fusing(x) and _bits_wanted() else None


def are_spikes(x: Tensor) -> bool:
    """Tell whether a tensor is known as spikes inside :func:`spikes_as_bits`."""
    return fusing(x) and _bits_wanted() and _owner(x) is not None


def _same(kept: Tensor) -> Tensor:
    return kept


def _packed(tensor: Tensor) -> PackedSpikes | None:
    """Return the bits of a tensor that is known to be unchanged spikes, else None."""
    owner = _owner(tensor)
    if owner is None:
        return None
    mark = _marks[owner]
    if mark.packed is None:
        mark.packed = PackedSpikes(tensor)  # once for all layers that read them
    return mark.packed


def _owner(tensor: Tensor) -> Tensor | None:
    """Return the marked tensor with the same entries at the same place in memory."""
    if not is_plain(tensor):
        return None
    owner = _spikes.get(tensor.data_ptr())
    if (
        owner is None
        or owner.data_ptr() != tensor.data_ptr()  # given other memory since it was marked
        or owner._version != _marks[owner].version  # written to since
        or owner.dtype != tensor.dtype
        or owner.shape != tensor.shape
        or owner.stride() != tensor.stride()
    ):
        return None
    return owner


def _pack(flat: Tensor) -> Tensor:
    passes = _passes(flat.device, flat.dtype)
    return _pack_by_torch(flat) if passes is None else passes.pack(flat)


def _unpack(bits: Tensor, dtype: torch.dtype) -> Tensor:
    passes = _passes(bits.device, dtype)
    return _unpack_by_torch(bits, dtype) if passes is None else passes.unpack(bits, dtype)


def _passes(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    if device.type == 'cuda':
        return cuda_passes()
    compiled = device.type == 'cpu' and dtype == torch.float32 and build.library() is not None
    return cpu if compiled else None


def _weights(device: torch.device) -> Tensor:
    return torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=device)


def _pack_by_torch(flat: Tensor) -> Tensor:
    flags = flat != 0
    if len(flags) % 8:
        flags = torch.nn.functional.pad(flags, (0, -len(flags) % 8))
    return (flags.view(-1, 8) * _weights(flat.device)).sum(1, dtype=torch.uint8)


def _unpack_by_torch(bits: Tensor, dtype: torch.dtype) -> Tensor:
    return (bits.view(-1, 1) & _weights(bits.device)).ne_(0).view(-1).to(dtype)
