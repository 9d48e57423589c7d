"""Files that are never there half-written."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def temporary_name(path: Path, suffix: str = '') -> Path:
    """Return a name beside a file under which this process writes it, however long the file's own name is."""
    target = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    return path.with_name(f'.{target}.{os.getpid()}.part{suffix}')


def write_json(content: Any, path: Path) -> None:
    """Write a JSON file that is never there half-written.

    Raises:
        OSError: If it cannot be written; names the file.
    """
    part = temporary_name(path)
    try:
        text = f'{json.dumps(content, indent=1, ensure_ascii=False)}\n'
        # A file name that is not UTF-8 has surrogates: JSON's own escape stands for each.
        part.write_text(text, encoding='utf-8', errors='backslashreplace')
        part.replace(path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink()
