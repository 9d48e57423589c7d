"""The C code: structures, and where the compiled library comes from."""

import ctypes
import os
from functools import cache
from pathlib import Path

import numpy as np

from ..compiler import compile_library

_PROCESS = os.getpid()
_FOLDER = Path(__file__).parent
_FLAGS = ('-O3', '-fPIC', '-ffp-contract=off', '-fno-math-errno')
# Paths of the C code by the flags that choose them.
INSTRUCTIONS = {
    'native': ('-march=native',),
    'avx2': ('-march=native', '-mno-avx512f'),
    'portable': (),
}
_Address = ctypes.c_void_p
_WINDOW = (
    *('N', 'H', 'W', 'OH', 'OW', 'kernel_h', 'kernel_w', 'stride_h', 'stride_w'),
    *('pad_h', 'pad_w', 'dilation_h', 'dilation_w', 'first_line', 'end_line'),
)
# Bytes that a thread works with; lists of active inputs take what is left, 2 bytes an entry.
_SCRATCH_BYTES = 736 << 10
FLOAT32, INT16, INT6, INT5 = range(4)


def _structure(name: str, *fields: tuple[str, type]) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {'_fields_': list(fields)})


def _numbers(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_int64) for name in names]


Window = _structure('Window', *_numbers(*_WINDOW))
Convolution = _structure(
    'Convolution',
    ('window', Window),
    *_numbers('words', 'M', 'block_words', 'capacity', 'kind', 'threads'),
)
Ends = _structure(
    'Ends',
    *(
        (name, _Address)
        for name in ('below', 'flip', 'spikes', 'step', 'bias', 'stream', 'numbers')
    ),
)
StemEnds = _structure(
    'StemEnds',
    *((name, _Address) for name in ('level', 'flip', 'spikes', 'step', 'bias', 'shift', 'numbers')),
)
Stem = _structure('Stem', ('window', Window), *_numbers('C', 'M', 'border', 'threads'))


@cache
def library(instructions: str = 'native') -> ctypes.CDLL:
    """Return the compiled engine.

    Args:
        instructions: ``'native'`` for what this processor has; ``'avx2'`` without AVX-512, or
            ``'portable'`` for what every processor of its kind has, to compare.

    Raises:
        RuntimeError: If there is no compiler or it fails; says what to do.
    """
    sources = sorted(_FOLDER.glob('*.[ch]'))
    flags = (*_FLAGS, *INSTRUCTIONS[instructions])
    loaded = compile_library(_FOLDER / 'engine.c', sources, flags, openmp='linked')
    for name in ('scratch_bytes', 'stem_bytes', 'count_bits', 'largest_stem_weight'):
        getattr(loaded, name).restype = ctypes.c_int64
    loaded.prepare()
    return loaded


def usable_threads(threads: int) -> int:
    """Return how many of so many threads may compute: one in a forked process.

    The threads of OpenMP do not survive a fork, and the child would wait for them for ever.
    """
    return threads if os.getpid() == _PROCESS else 1


def first_cache_bytes() -> int:
    """Return the size of the first data cache, 32 KiB where it is not known."""
    try:
        size = os.sysconf('SC_LEVEL1_DCACHE_SIZE')
    except (ValueError, OSError, AttributeError):
        size = 0
    return size if size > 0 else 32 << 10


def block_words(kind: int, taps: int, words: int) -> int:
    """Return how many words of inputs make a block whose weights stay in the first cache."""
    row = 64 if kind in (INT6, INT5) else 128
    fits = int(1.2 * first_cache_bytes() / (taps * 32 * row))
    most = words + words % 2 if words > 1 else 1  # units of two words, where there are two
    return max(1, min(fits - fits % 2 if fits > 1 else fits, most))


def capacity(blocks: int, rows: int, others: int) -> int:
    """Return how many entries the lists of a thread have room for.

    Args:
        blocks: Blocks of inputs.
        rows: Rows of a block, which are the most entries that a place has there.
        others: Bytes of what else the thread works with.
    """
    return max((_SCRATCH_BYTES - others) // 2, 4 * blocks * (rows + 128))


def empty(shape: tuple[int, ...] | int, dtype: type) -> np.ndarray:
    """Return an array that begins at a multiple of 64 bytes."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """Return a copy that begins at a multiple of 64 bytes."""
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def address(array: np.ndarray | None) -> ctypes.c_void_p:
    """Return where an array begins; it must be kept alive."""
    return _Address(None if array is None else array.ctypes.data)
