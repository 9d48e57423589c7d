"""Lets MMEngine write checkpoints that are whole or not there."""

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

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
