"""Which implementation runs for a tensor."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, nn

from . import build, cpu
from .layout import as_blocks, is_plain

Level = Literal['plain', 'tested', 'experimental']
LEVELS = ('plain', 'tested', 'experimental')


def check_level(owner: str, level: str) -> str:
    """Return a level.

    Raises:
        ValueError: If it is none.
    """
    if level not in LEVELS:
        raise ValueError(f'{owner}: kernels must be one of {LEVELS}, got {level!r}')
    return level


def set_kernels(model: nn.Module, level: Level) -> None:
    """Choose the implementation of every spiking layer of a model.

    Other models are not touched, and copies and pickles of this one keep the setting.

    Args:
        model: Network with spiking layers.
        level: ``'plain'``: PyTorch's own operations, the reference. ``'tested'``: the fast kernels
            where they have been measured, which is on a CPU; the default. ``'experimental'``: those
            for CUDA as well.

    Raises:
        ValueError: If the level is none of these.

    Example:
        >>> set_kernels(detector, 'plain')
    """
    check_level('set_kernels', level)
    for module in model.modules():
        if hasattr(type(module), 'kernels'):
            module.kernels = level


@contextmanager
def plain_kernels(model: nn.Module) -> Iterator[None]:
    """Let a model compute by PyTorch's own operations while the block runs.

    Forward hooks on norms and neurons then see what these modules read: membrane potentials, which the
    kernels never write to memory.

    Args:
        model: Network with spiking layers; afterwards each has its own setting again.
    """
    levels = [(m, m.kernels) for m in model.modules() if hasattr(type(m), 'kernels')]
    set_kernels(model, 'plain')
    try:
        yield
    finally:
        for module, level in levels:
            module.kernels = level


def enabled(level: Level, x: Tensor) -> bool:
    """Tell whether kernels may run for a tensor."""
    if level == 'plain' or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    device = x.device.type
    on_device = device == 'cpu' or (device == 'cuda' and level == 'experimental')
    return on_device and is_plain(x)


def neuron_kernels(level: Level, x: Tensor) -> ModuleType | None:
    """Return the module with norm, neuron and packed bits for a tensor (N, C, ...).

    Returns:
        None where PyTorch's operations run.
    """
    if not enabled(level, x) or as_blocks(x) is None:
        return None
    if x.device.type == 'cpu':
        return cpu if x.dtype == torch.float32 and build.library() is not None else None
    return _triton('cuda') if x.dtype in (torch.float32, torch.float16, torch.bfloat16) else None


def pooling_kernels(level: Level, x: Tensor, kernel: tuple[int, int]) -> ModuleType | None:
    """Return the module with max pooling for a tensor (N, C, H, W), None for PyTorch's."""
    if not enabled(level, x):
        return None
    if x.device.type == 'cpu':
        fits = x.dtype == torch.float32 and x.is_contiguous() and kernel[0] * kernel[1] <= 256
        return cpu if fits and build.library() is not None else None
    known = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    module = _triton('cuda_pooling') if known and x.dtype != torch.float64 else None
    return module if module and kernel[0] * kernel[1] <= module.LARGEST else None


@cache
def _triton(name: str) -> ModuleType | None:
    """Import a module of Triton kernels; None with a warning without Triton."""
    try:
        return importlib.import_module(f'.{name}', __package__)
    except ImportError as error:
        warnings.warn(
            f"kernels='experimental' on CUDA: PyTorch's operations run instead: {error}. Install "
            'triton, which comes with PyTorch for Linux',
            stacklevel=2,
        )
        return None
