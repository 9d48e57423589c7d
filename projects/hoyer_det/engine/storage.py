"""Writes files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from hoyer_det_runtime.files import temporary_name
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import checkpoint_hook


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


class AtomicLocalBackend(LocalBackend):
    """mmengine's backend of local files, which writes by :func:`replacing`.

    ``CheckpointHook(backend_args=dict(backend='atomic_local'))`` keeps a run that is killed, or a full
    disk, from leaving half a checkpoint.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file."""
        with replacing(filepath) as part, part.open('wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())  # else the rename may reach the disk before the content


register_backend('atomic_local', AtomicLocalBackend, force=True)


@contextmanager
def _open_replacing(path: str, mode: str) -> Iterator[IO[Any]]:
    with replacing(path) as part, part.open(mode) as file:
        yield file


# The one file that mmengine's CheckpointHook opens itself: the name of the newest checkpoint.
checkpoint_hook.open = _open_replacing
