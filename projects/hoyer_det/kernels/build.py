"""Compiles ``cpu.c`` when it is first needed, once for a machine, and loads it.

The C code knows nothing of Python or PyTorch, so the compiler of the system (``$CC`` or ``cc``) is all it
takes. Without one, neurons run by PyTorch's own operations.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

_SOURCE = Path(__file__).with_name('cpu.c')
# Sums may be reordered into vectors; NaN and inf keep their meaning.
_FLAGS = [
    '-O3',
    '-march=native',
    '-fPIC',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-fno-signed-zeros',
    '-fassociative-math',
]


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, None with a warning where there are none."""
    compiler = shlex.split(os.environ.get('CC') or 'cc')  # may have arguments
    if shutil.which(compiler[0]) is None:
        return _without(f'there is no C compiler ({compiler[0]})')
    try:
        folder = _cache_folder()
        if folder is not None:
            return _load(compiler, folder)
        with tempfile.TemporaryDirectory() as place:  # what is loaded stays without its file
            return _load(compiler, Path(place))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors='replace').strip().splitlines() or ['no message']
        return _without(f'{shlex.join(compiler)} failed: {lines[-1]}')
    except (OSError, subprocess.TimeoutExpired) as error:
        return _without(str(error))


def _without(reason: str) -> None:
    warnings.warn(
        f"neurons run by PyTorch's own operations, slower and in more memory: {reason}. Install a C "
        "compiler such as gcc, or set kernels='plain' in act_cfg to leave it at that",
        stacklevel=2,
    )


def _cache_folder() -> Path | None:
    """Return a folder that nobody else can write to, as code is loaded from it; None without one."""
    try:
        root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        folder = Path(root) / 'hoyer_det'
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except (OSError, RuntimeError):
        return None
    foreign = hasattr(os, 'getuid') and (status.st_uid != os.getuid() or status.st_mode & 0o022)
    return None if foreign or not os.access(folder, os.W_OK | os.X_OK) else folder


def _load(compiler: list[str], folder: Path) -> ctypes.CDLL:
    # For this source on this kind of processor, as folders are shared between machines.
    key = hashlib.sha256(_SOURCE.read_bytes() + _processor().encode()).hexdigest()[:16]
    error: Exception | None = None
    # In threads where the code and PyTorch's OpenMP runtime go together, else in one.
    for name, flags in (('threads', ['-fopenmp']), ('single', [])):
        file = folder / f'{name}-{key}.so'
        try:
            with suppress(OSError):  # missing, or damaged
                return ctypes.CDLL(str(file))
            _compile(compiler, flags, file)
            return ctypes.CDLL(str(file))
        except (OSError, subprocess.CalledProcessError) as failure:
            error = failure
    raise error


def _compile(compiler: list[str], flags: list[str], file: Path) -> None:
    with tempfile.TemporaryDirectory(dir=file.parent) as place:
        made, code = Path(place) / file.name, Path(place) / 'cpu.o'
        # Linked without -fopenmp: its functions come from the runtime that PyTorch has loaded. A second
        # runtime beside it would have threads of its own, which get into the way of PyTorch's.
        commands = (
            [*compiler, *_FLAGS, *flags, '-c', str(_SOURCE), '-o', str(code)],
            [*compiler, '-shared', str(code), '-o', str(made), '-lm'],
        )
        for command in commands:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        with made.open('rb') as library:
            os.fsync(library.fileno())  # half a file would end the process that loads it
        made.replace(file)  # at once, as other processes may do the same


def _processor() -> str:
    """Describe what ``-march=native`` depends on."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        flags = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
    except OSError:
        flags = platform.processor()
    return f'{platform.platform()} {flags} {" ".join(_FLAGS)}'
