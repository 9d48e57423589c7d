"""Which implementation runs the passes over a layer's tensors."""

import importlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from . import chunked, compiled

# Off by default: new, and not yet run on a GPU.
_fused = os.environ.get('HOYER_DET_FUSED') == '1'


@contextmanager
def _switch(fused: bool) -> Iterator[None]:
    global _fused
    before, _fused = _fused, fused
    try:
        yield
    finally:
        _fused = before


def fused_path() -> AbstractContextManager[None]:
    """Let neurons run their passes fused, and keep spikes for the backward pass as bits.

    The environment variable ``HOYER_DET_FUSED=1`` does it for a whole process.
    """
    return _switch(True)


def plain_path() -> AbstractContextManager[None]:
    """Let every neuron compute by plain tensor operations, with nothing fused or packed (default).

    The plain operations are the reference of the fused ones. Inside, batch norms are modules of their
    own, and autograd keeps potentials and spikes as they are.
    """
    return _switch(False)


def fusing() -> bool:
    """Tell whether fused passes and packed spikes are wanted."""
    # What torch.compile traces it fuses itself.
    return _fused and not torch.compiler.is_compiling()


def passes_for(x: Tensor) -> ModuleType | None:
    """Return the module with the fused passes for a tensor, None for the plain tensor operations.

    Args:
        x: Potential or input of a norm.
    """
    if not fusing() or chunked.as_blocks(x) is None:
        return None
    if x.device.type == 'cpu' and x.dtype == torch.float32:
        return chunked if compiled.library() is None else compiled
    if x.device.type == 'cuda' and x.dtype in (torch.float32, torch.float16, torch.bfloat16):
        return _triton_passes()
    return None


@cache
def _triton_passes() -> ModuleType | None:
    """Return the Triton kernels where Triton is installed, as it is with PyTorch for Linux."""
    try:
        return importlib.import_module('.triton_passes', __package__)
    except ImportError:
        return None
