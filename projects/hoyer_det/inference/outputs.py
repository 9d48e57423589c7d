"""Writes pictures and videos with detections, and shows them."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ..files import replacing, temporary_name
from .sources import Image, Source

JSON_NAME = 'detections.json'
_LARGEST_SIDE = 65500  # of libjpeg


def plan_outputs(sources: Sequence[Source], folder: Path) -> list[Path]:
    """Choose the file of each source: the stem of its own with ``.jpg``, or ``.mp4`` for a video.

    Where sources of different folders have the same name, a number is added. What an earlier run left in
    the folder is replaced, but nothing in a folder with sources: there it may be anything.

    Raises:
        ValueError: If a file of these, or ``detections.json``, would replace a source or a file beside one,
            or there is a folder in its place.
    """
    files = [Path(source.path) for source in sources if isinstance(source.path, str)]
    inputs = {file.resolve() for file in files}
    beside_inputs = folder.resolve() in {parent.resolve() for parent in {f.parent for f in files}}
    planned: dict[Path, None] = {}
    for source in sources:
        suffix = '.jpg' if isinstance(source, Image) else '.mp4'
        stem = Path(source.name).stem.replace(' ', '_')
        path, number = folder / f'{stem}{suffix}', 2
        while path in planned:
            path, number = folder / f'{stem}_{number}{suffix}', number + 1
        planned[path] = None
    for path in [*planned, folder / JSON_NAME]:
        if path.is_dir():
            raise ValueError(f'{path}: is a folder; remove it, or choose another --out-dir')
        if path.resolve() in inputs or (beside_inputs and path.exists()):
            raise ValueError(
                f'{path}: is there already, among the inputs, and would be replaced; choose another --out-dir'
            )
    return list(planned)


def write_picture(pixels: np.ndarray, path: Path) -> None:
    """Write BGR pixels into an image file; what is larger than a JPEG can be is made smaller.

    Raises:
        OSError: If it cannot be written.
    """
    scale = _LARGEST_SIDE / max(pixels.shape[:2])
    if scale < 1:
        size = [max(int(side * scale), 1) for side in pixels.shape[1::-1]]
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    good, data = cv2.imencode(path.suffix, pixels)
    if not good:
        raise OSError(f'{path}: cannot be encoded')
    with replacing(path) as part:
        part.write_bytes(data)


class VideoFile:
    """A video that appears under its name when it is complete.

    Args:
        path: An ``.mp4`` file.
        fps: Frames in a second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.fps = fps
        self._part = temporary_name(path, path.suffix)
        self._writer: cv2.VideoWriter | None = None
        self._frames = 0

    def write(self, pixels: np.ndarray) -> None:
        """Add a frame, BGR; all of the size of the first.

        Raises:
            OSError: If the file cannot be written.
        """
        if self._writer is None:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            height, width = pixels.shape[:2]
            code = cv2.VideoWriter_fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(str(self._part), code, self.fps, (width, height))
            if not self._writer.isOpened():
                raise OSError(f'{self.path}: cannot be written')
        self._writer.write(pixels)
        self._frames += 1

    def close(self) -> None:
        """Finish the file; without a frame there is none.

        Raises:
            OSError: If it is not complete; then there is none either.
        """
        if self._writer is None:
            return
        self._writer.release()
        # OpenCV says nothing where the disk is full.
        written = cv2.VideoCapture(str(self._part))
        complete = written.isOpened() and written.get(cv2.CAP_PROP_FRAME_COUNT) >= self._frames
        written.release()
        if not complete:
            self._part.unlink(missing_ok=True)
            raise OSError(f'{self.path}: cannot be written whole; is the disk full?')
        self._part.replace(self.path)


def check_screen() -> None:
    """Make sure that there is a screen to show pictures on.

    Raises:
        ValueError: If there is none, or OpenCV was built without windows.
    """
    if sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & os.environ.keys():
        raise ValueError('--show: there is no screen here (DISPLAY is not set); leave it out')
    try:
        cv2.namedWindow('hoyer-det')
    except cv2.error as error:
        raise ValueError('--show: this OpenCV has no windows; install opencv-python') from error


def show(pixels: np.ndarray, milliseconds: int) -> bool:
    """Show a picture; wait so long, 0 for a key.

    Returns:
        Whether to go on: not after the key q or Esc.
    """
    cv2.imshow('hoyer-det', pixels)
    return cv2.waitKey(milliseconds) & 0xFF not in (ord('q'), 27)
