"""Other commands of this package, and what they left in files."""

import fcntl
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same folder out; it is made where it is missing.

    The commands that are run meanwhile have it, too, and so keep it where their parent is killed.

    Raises:
        ValueError: If another process has it.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f'--out {folder}: another process is at work there; wait for its end, or choose another '
                'folder'
            ) from None
        yield
    finally:
        os.close(held)
        if new:
            with suppress(OSError):  # something is in it
                folder.rmdir()


def call(*command: object) -> None:
    """Run a command of ``hoyer-det``.

    Raises:
        SystemExit: If it fails, with its exit code; it has said why.
        ChildProcessError: If it was killed, and so has not.
    """
    line = [*map(str, command)]
    # Without close_fds, so that it has the folder of `alone`, too.
    code = subprocess.run(
        [sys.executable, '-m', 'hoyer_det_cli', *line], close_fds=False
    ).returncode
    if code < 0:
        raise ChildProcessError(f'hoyer-det {shlex.join(line)}: was killed by signal {-code}')
    if code:
        sys.exit(code)


def read_json(file: Path) -> Any:
    """Read a file as JSON.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(
            f'{file}: cannot be read ({error}); remove it to have it made again'
        ) from None
