"""How the C library keeps the memory of freed tensors."""

import ctypes
import os
import sys

import torch


def keep_freed_memory() -> None:
    """Let freed tensors stay with the process, where it computes on a CPU.

    The C library of Linux hands large blocks back to the system and has every page of the next tensor
    filled with zeros again, at each training step. Nothing happens where there is a GPU or another C
    library, or where variables of the environment (``MALLOC_...``) say already how memory is kept.
    """
    chosen = any(name.startswith('MALLOC_') for name in os.environ)
    if chosen or torch.cuda.is_available() or not sys.platform.startswith('linux'):
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return
    # malloc.h: M_MMAP_MAX = -4, no block is mapped by itself; M_TRIM_THRESHOLD = -1, in bytes.
    mallopt(-4, 0)
    mallopt(-1, 2**31 - 1)
