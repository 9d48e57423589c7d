"""Errors of a command in one line."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.dist import get_dist_info

from ..errors import foreseen, named

TRACEBACK_VARIABLE = 'HOYER_DET_TRACEBACK'
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
# What Gloo says when the process at the other end is gone.
_GONE = ('Connection closed by peer', 'Connection reset by peer', 'Broken pipe')


@contextmanager
def one_line_errors(
    interrupted: Callable[[], str] = lambda: 'interrupted', log_dir: str | None = None
) -> Iterator[None]:
    """Turn an exception into one line on stderr and exit code 1, Ctrl-C into one and 130.

    Set the environment variable ``HOYER_DET_TRACEBACK=1`` to see the traceback instead. One of several
    processes names itself in the line, and does not wait for the others to leave.

    Args:
        interrupted: Returns the line after Ctrl-C.
        log_dir: Folder that gets the traceback of an error that nobody foresaw, which a long run would
            take long to show again.
    """
    try:
        yield
    except KeyboardInterrupt:
        _leave(interrupted(), INTERRUPTED)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        if get_dist_info()[1] > 1 and any(text in str(error) for text in _GONE):
            _leave('error: another process has ended; its own line says why', 1)
        _leave(f'error: {_in_one_line(error, log_dir)}', 1)


def _in_one_line(error: Exception, log_dir: str | None) -> str:
    text = foreseen(error)
    if text is not None:
        return text
    hint = f'set {TRACEBACK_VARIABLE}=1 for the traceback'
    if log_dir is not None:
        file = Path(log_dir, f'traceback_{get_dist_info()[0]}.txt')
        with suppress(OSError):  # the disk may be full
            file.write_text(traceback.format_exc())
            hint = f'traceback: {file}'
    return f'{named(error)} ({hint})'


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
