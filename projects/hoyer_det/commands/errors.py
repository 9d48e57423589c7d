"""Errors of a command in one line."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmengine.dist import get_dist_info

TRACEBACK_VARIABLE = 'HOYER_DET_TRACEBACK'
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
# What Gloo says when the process at the other end is gone.
_GONE = ('Connection closed by peer', 'Connection reset by peer', 'Broken pipe')


@contextmanager
def one_line_errors(
    *kinds: type[Exception], interrupted: Callable[[], str] = lambda: 'interrupted'
) -> Iterator[None]:
    """Turn an exception into one line on stderr and exit code 1, Ctrl-C into one and 130.

    Set the environment variable ``HOYER_DET_TRACEBACK=1`` to see the traceback instead. One of several
    processes names itself in the line, and does not wait for the others to leave.

    Args:
        *kinds: Exceptions to turn; every ``Exception`` by default.
        interrupted: Returns the line after Ctrl-C.
    """
    kinds = kinds or (Exception,)
    try:
        yield
    except KeyboardInterrupt:
        _leave(interrupted(), INTERRUPTED)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        if get_dist_info()[1] > 1 and any(text in str(error) for text in _GONE):
            _leave('error: another process has ended; its own line says why', 1)
        if not isinstance(error, kinds):
            raise
        _leave(f'error: {_in_one_line(error)}', 1)


def _in_one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if any(line.startswith('Original Traceback') for line in lines):
        lines = lines[-1:]  # of a worker process of a data loader
    text = ' '.join(' '.join(lines).split()) or type(error).__name__
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return text
    return f'{type(error).__name__}: {text} (set {TRACEBACK_VARIABLE}=1 for the traceback)'


def _leave(line: str, code: int) -> None:
    rank, processes = get_dist_info()
    if processes == 1:
        if code == 1:
            sys.exit(line)
        print(line, file=sys.stderr)
        sys.exit(code)
    if rank == 0 or code == 1:
        print(f'process {rank} of {processes}: {line}', file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a process group in use can hang the end of the interpreter
