"""Rules of what is wrong with an annotation, shared by the data sets and ``check-data``."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

LONGEST_NAME = 200  # characters of a class name; longer is no name


def require_folder(data_root: str | None, layout: str) -> Path:
    """Return the root of a data set as a path.

    Args:
        data_root: Folder, or None where none is given.
        layout: What it should look like, for the message: ``in Pascal VOC layout``.

    Raises:
        FileNotFoundError: If it is not given or is no folder.
    """
    if data_root is None or not Path(data_root).is_dir():
        raise FileNotFoundError(
            f'{data_root or "data_root"}: no such folder; point to one {layout} with '
            '`--cfg-options data_root=FOLDER`'
        )
    return Path(data_root)


def names_all(dataset: dict[str, Any]) -> bool:
    """Tell whether the arguments of a data set leave nothing to be found in its folder."""
    classes = (dataset.get('metainfo') or {}).get('classes')
    return bool(classes and dataset.get('ann_file') and dataset.get('data_prefix'))


def box_fault(box: Sequence[float], width: float, height: float) -> str | None:
    """Tell why a box can neither be learnt nor found.

    Args:
        box: ``(x1, y1, x2, y2)`` in pixels, counted from 0.
        width: Width of the image in pixels.
        height: Its height.

    Returns:
        ``'not finite'``, ``'inverted'``, ``'zero area'``, ``'outside the image'``, or None for a box
        that is good. One that reaches beyond the border is good: the pipeline clips it in training.
    """
    x1, y1, x2, y2 = box
    if not all(math.isfinite(value) for value in box):
        return 'not finite'
    if x2 < x1 or y2 < y1:
        return 'inverted'
    if x2 == x1 or y2 == y1:
        return 'zero area'
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return 'outside the image'
    return None


def name_fault(name: object) -> str | None:
    """Tell why a value cannot be the name of a class, None if it can."""
    if not isinstance(name, str):
        return f'{shorten(repr(name))} is no text'
    if not name.strip():
        return 'is empty'
    if len(name) > LONGEST_NAME:
        return (
            f'has {len(name)} characters ({shorten(name, 30)}), at most {LONGEST_NAME} make a name'
        )
    return None


def shorten(text: str, length: int = 80) -> str:
    """Return a text cut to a length, with ``...`` where it was cut."""
    return text if len(text) <= length else f'{text[: length - 3]}...'


def log_left_out(ann_file: str, left_out: dict[str, list[str]]) -> None:
    """Say in one line of the log how many boxes are left out, why, and of which images.

    Args:
        ann_file: List of images or annotation file.
        left_out: Fault -> the image of each box that has it; nothing is said where it is empty.
    """
    if not left_out:
        return
    counts = ', '.join(f'{len(images)} {fault}' for fault, images in sorted(left_out.items()))
    images = sorted({image for images in left_out.values() for image in images})
    rest = f' and {len(images) - 10} others' if len(images) > 10 else ''
    total = sum(map(len, left_out.values()))
    print_log(
        f'{ann_file}: {total} boxes left out ({counts}), in {", ".join(images[:10])}{rest}',
        logger='current',
        level=logging.WARNING,
    )


def refuse_empty(dataset: BaseDataset, kept: list[dict]) -> None:
    """Raise an error where ``filter_cfg`` has left no image of a data set.

    Raises:
        ValueError: Names the list of images or the annotation file.
    """
    if not kept:
        raise ValueError(
            f'{dataset.ann_file}: no image left of {len(dataset.data_list)} listed; it needs one that '
            'passes filter_cfg (for training: one with an object)'
        )
