"""Compiles C code when it is first needed, once for a machine, and loads it."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal


def compile_library(
    source: Path,
    parts: Iterable[Path],
    flags: Sequence[str],
    openmp: Literal['linked', 'loaded'],
) -> ctypes.CDLL:
    """Compile a C file, or take what was compiled before, and load it.

    The compiler is the system's (``$CC`` or ``cc``). Results are kept in ``$XDG_CACHE_HOME/hoyer_det``
    (``~/.cache/hoyer_det``) if nobody else can write there. A compiler without OpenMP makes code that runs
    in one thread.

    Args:
        source: File to compile.
        parts: All files that the result depends on.
        flags: For the compiler.
        openmp: ``'linked'``: with the OpenMP runtime of the compiler. ``'loaded'``: with the one that the
            process has loaded, as PyTorch does; a second one beside it would have threads of its own,
            which get into the way of the others.

    Raises:
        RuntimeError: If there is no compiler, or it fails.
    """
    try:
        compiler = shlex.split(os.environ.get('CC', '')) or ['cc']  # may have arguments
    except ValueError as error:
        raise RuntimeError(f'CC={os.environ["CC"]}: cannot be read ({error})') from error
    if shutil.which(compiler[0]) is None:
        raise RuntimeError(f'there is no C compiler ({compiler[0]})')
    # For this source on this kind of processor, as folders are shared between machines.
    content = b''.join(part.read_bytes() for part in parts)
    key = hashlib.sha256(content + f'{_processor()} {[*flags]}'.encode()).hexdigest()[:16]
    try:
        folder = _private_cache()
        if folder is not None:
            return _load(compiler, source, flags, openmp, folder, key)
        with tempfile.TemporaryDirectory() as place:  # what is loaded stays without its file
            return _load(compiler, source, flags, openmp, Path(place), key)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors='replace').strip().splitlines() or ['no message']
        raise RuntimeError(f'{shlex.join(compiler)} failed: {lines[-1]}') from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from error


def _private_cache() -> Path | None:
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


def _load(
    compiler: list[str], source: Path, flags: Sequence[str], openmp: str, folder: Path, key: str
) -> ctypes.CDLL:
    error: Exception | None = None
    threads = ['-fopenmp']
    for name, compiling, linking in (
        ('threads', threads, threads if openmp == 'linked' else []),
        ('single', [], []),
    ):
        file = folder / f'{name}-{key}.so'
        try:
            with suppress(OSError):  # missing, or damaged
                return ctypes.CDLL(str(file))
            _compile(compiler, source, [*flags, *compiling], linking, file)
            return ctypes.CDLL(str(file))
        except (OSError, subprocess.CalledProcessError) as failure:
            error = failure
    raise error


def _compile(
    compiler: list[str], source: Path, flags: list[str], linking: list[str], file: Path
) -> None:
    with tempfile.TemporaryDirectory(dir=file.parent) as place:
        made, code = Path(place) / file.name, Path(place) / 'code.o'
        for command in (
            [*compiler, *flags, '-c', str(source), '-o', str(code)],
            [*compiler, *linking, '-shared', str(code), '-o', str(made), '-lm'],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=120)
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
    return f'{platform.platform()} {flags}'
