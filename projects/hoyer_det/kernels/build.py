"""Compiles ``cpu.c`` when it is first needed, once for a machine, and loads it.

The C code knows nothing of Python or PyTorch, so the compiler of the system (``$CC`` or ``cc``) is all it
takes. Without one, neurons run by PyTorch's own operations.
"""

import ctypes
import warnings
from functools import cache
from pathlib import Path

from hoyer_det_runtime.compiler import compile_library

_SOURCE = Path(__file__).with_name('cpu.c')
# Sums may be reordered into vectors; NaN and inf keep their meaning.
_FLAGS = (
    '-O3',
    '-march=native',
    '-fPIC',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-fno-signed-zeros',
    '-fassociative-math',
)


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, None with a warning where there are none."""
    try:
        return compile_library(_SOURCE, [_SOURCE], _FLAGS, openmp='loaded')
    except RuntimeError as error:
        warnings.warn(
            f"neurons run by PyTorch's own operations, slower and in more memory: {error}. Install a C "
            "compiler such as gcc, or set kernels='plain' in act_cfg to leave it at that",
            stacklevel=2,
        )
        return None
