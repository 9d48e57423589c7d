"""Lets MMEngine write checkpoints that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import checkpoint_hook

from ..files import replacing


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
