"""Errors of a command in one line."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRACEBACK_VARIABLE = 'HOYER_DET_TRACEBACK'


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn an exception into one line on stderr and exit code 1.

    Set the environment variable ``HOYER_DET_TRACEBACK=1`` to see the traceback instead.

    Args:
        *kinds: Exceptions to turn; every ``Exception`` by default.
    """
    kinds = kinds or (Exception,)
    try:
        yield
    except kinds as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        lines = str(error).strip().splitlines()
        if any(line.startswith('Original Traceback') for line in lines):
            lines = lines[-1:]  # of a worker process of a data loader
        text = ' '.join(' '.join(lines).split()) or type(error).__name__
        if not isinstance(error, ValueError | OSError | FloatingPointError):
            text = f'{type(error).__name__}: {text} (set {TRACEBACK_VARIABLE}=1 for the traceback)'
        sys.exit(f'error: {text}')
