"""Writes files that are whole or not there."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def temporary_name(path: Path, suffix: str = '') -> Path:
    """Return a name beside a file under which this process writes it, however long the file's own name is."""
    target = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    return path.with_name(f'.{target}.{os.getpid()}.part{suffix}')


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file under a temporary name beside it, and rename it when the block ends without error.

    Whoever reads ``path`` meantime, or after a crash, finds the old file or the new one.

    Args:
        path: File to write; its folder is made where it is missing. What is there and no file, such as
            ``/dev/stdout``, is written to itself.

    Yields:
        The temporary name.

    Raises:
        OSError: If it cannot be written; the message names ``path``, also where the disk is full.
    """
    path = Path(path)
    special = path.exists() and not path.is_file() and not path.is_dir()
    part = path if special else temporary_name(path)
    new_parents = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if not special:
            os.replace(part, path)
    except OSError as error:
        # A failed write names no file, and PyTorch's does not even say that the disk is full.
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        if not special:
            with suppress(OSError):  # its folder is none, which is said above
                part.unlink()
        with suppress(OSError):  # something is in it
            for parent in new_parents:
                parent.rmdir()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file by :func:`replacing`."""
    with replacing(path) as part:
        # A file name that is not UTF-8 has surrogates; in JSON the escape stands for each.
        part.write_text(text, encoding='utf-8', errors='backslashreplace')


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file by :func:`replacing`."""
    write_text(path, f'{json.dumps(content, indent=1, ensure_ascii=False)}\n')
