"""Whether neurons run fused, and by which implementation."""

import importlib
import os
import warnings
from contextlib import AbstractContextManager
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from . import build, cpu
from .layout import as_blocks, is_plain

_VARIABLE = 'HOYER_DET_FUSED'
# What `fused_path` and `plain_path` ask for, None outside of them.
_asked: bool | None = None


@cache
def check_environment() -> bool | None:
    """Return what ``HOYER_DET_FUSED`` asks for, None if it is not set.

    Raises:
        ValueError: If it is neither 0 nor 1.
    """
    choices = {None: None, '': None, '0': False, '1': True}
    value = os.environ.get(_VARIABLE)
    if value not in choices:
        raise ValueError(f'{_VARIABLE}={value}: must be 0, 1 or not set at all')
    return choices[value]


class Path(AbstractContextManager):
    """Context in which the whole process, its backward threads too, takes a path; may be used again.

    Args:
        fused: True, False, or None for what holds outside of all such contexts.
    """

    def __init__(self, fused: bool | None) -> None:
        self._fused = fused
        self._before: list[bool | None] = []

    def __enter__(self) -> None:
        global _asked
        self._before.append(_asked)
        _asked = self._fused

    def __exit__(self, *error: object) -> None:
        global _asked
        _asked = self._before.pop()


def path_of_now() -> Path:
    """Return a context that brings back the path of now, as for a second forward pass."""
    return Path(_asked)


def fused_path() -> AbstractContextManager[None]:
    """Let neurons run their passes fused on every device, and keep spikes as bits.

    On a CPU that is the default; on CUDA, where it has not been measured yet, it is not. The environment
    variable ``HOYER_DET_FUSED=1`` does it for a whole process.
    """
    return Path(True)


def plain_path() -> AbstractContextManager[None]:
    """Let every neuron compute by plain tensor operations, with nothing fused or packed.

    They are the reference of the fused ones. Inside, batch norms are modules of their own, and autograd
    keeps potentials and spikes as they are. ``HOYER_DET_FUSED=0`` does it for a whole process.
    """
    return Path(False)


def fusing_anywhere() -> bool:
    """Tell whether there may be a device whose tensors take the fused path."""
    # What torch.compile traces it fuses itself.
    return not torch.compiler.is_compiling() and _wanted() is not False


def fusing(x: Tensor) -> bool:
    """Tell whether fused passes and packed spikes are wanted for a tensor.

    Args:
        x: Tensor on the device in question.
    """
    # Tensors that stand for others (fake ones, say) have no memory to go through, and what traces for
    # an export has to see plain operations.
    if not fusing_anywhere() or not is_plain(x) or torch.jit.is_tracing():
        return False
    wanted = _wanted()
    return x.device.type == 'cpu' if wanted is None else wanted


def _wanted() -> bool | None:
    """Return True or False where somebody has asked for it, None where the device decides."""
    return check_environment() if _asked is None else _asked


def passes_for(x: Tensor) -> ModuleType | None:
    """Return the module with the fused passes for a tensor, None for the plain tensor operations.

    Args:
        x: Potential or input of a norm.
    """
    if not fusing(x) or as_blocks(x) is None:
        return None
    if x.device.type == 'cpu' and x.dtype == torch.float32:
        return None if build.library() is None else cpu
    if x.device.type == 'cuda' and x.dtype in (torch.float32, torch.float16, torch.bfloat16):
        return cuda_passes()
    return None


def pooling_for(x: Tensor, kernel: tuple[int, int]) -> ModuleType | None:
    """Return the module with the max pooling for a tensor, None for PyTorch's.

    Args:
        x: Features (N, C, H, W) that go by the fused path.
        kernel: Height and width of the window.
    """
    if x.device.type == 'cpu' and x.dtype == torch.float32 and x.is_contiguous():
        return None if build.library() is None else cpu
    known = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    if x.device.type == 'cuda' and known and x.dtype != torch.float64:
        module = _triton('cuda_pooling')
        return module if module and kernel[0] * kernel[1] <= module.LARGEST else None
    return None


def cuda_passes() -> ModuleType | None:
    """Return the Triton kernels, None without Triton."""
    return _triton('cuda')


@cache
def _triton(name: str) -> ModuleType | None:
    """Import a module of Triton kernels; None with a warning without Triton."""
    try:
        return importlib.import_module(f'.{name}', __package__)
    except ImportError as error:
        warnings.warn(
            f'on CUDA the fused path was asked for, and plain operations run instead: {error}. '
            'Install triton, which comes with PyTorch for Linux',
            stacklevel=2,
        )
        return None
