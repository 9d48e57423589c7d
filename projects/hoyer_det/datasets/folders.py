"""Looks into folders of images and annotations, and makes new ones."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def files_below(folder: str | Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files of a folder and of all folders below it, linked ones included.

    Args:
        folder: Folder; nothing is yielded where there is none.
        above: Folders that are being looked into, so that a link back to one of them ends.
    """
    real = os.path.realpath(folder)
    if real in above or not os.path.isdir(real):
        return
    for path in sorted(Path(folder).iterdir()):
        if path.is_dir():
            yield from files_below(path, (*above, real))
        else:
            yield path


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name beside it, and rename it when the block ends without error.

    Args:
        folder: Folder that appears when it is complete; absent or empty.

    Yields:
        The temporary name; the folder is not made yet.

    Raises:
        OSError: If there is something in its place.
    """
    temporary = folder.with_name(f'.{folder.name}.{uuid.uuid4().hex}.tmp')
    new_parents = [parent for parent in folder.parents if not parent.exists()]
    try:
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # the folder is in it
            for parent in new_parents:
                parent.rmdir()
