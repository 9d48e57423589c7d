"""Looks into folders of images and annotations."""

import os
from collections.abc import Iterator
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
