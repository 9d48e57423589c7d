"""Finds the images that a user names: files, folders, globs, videos, cameras."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
from mmdet.apis.det_inferencer import IMG_EXTENSIONS

IMAGE_SUFFIXES = (*IMG_EXTENSIONS, '.gif')  # of a GIF the first image
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')
# Of containers that store the number of frames; of others OpenCV reckons it from the duration.
_COUNTING = ('.mp4', '.m4v', '.mov', '.avi')


class Frame(NamedTuple):
    """One image to look at.

    Attributes:
        image: File, or BGR pixels, uint8 (height, width, 3).
        index: Number in a video or camera from 0, None for an image file.
    """

    image: str | np.ndarray
    index: int | None = None


@dataclass(frozen=True)
class Image:
    """An image file."""

    path: str
    fps: None = None
    incomplete: ClassVar[str] = ''

    def __len__(self) -> int:
        return 1

    @property
    def name(self) -> str:
        """The file."""
        return self.path

    def frames(self) -> Iterator[Frame]:
        """Yield the file itself."""
        yield Frame(self.path)


class Video:
    """A video file, or a camera.

    Args:
        path: File, or number of the camera.

    Attributes:
        name: File, or ``camera 0``.
        fps: Frames in a second, 25 where the source does not tell.
        incomplete: A line if the frames that were read to the end are fewer than the file announces.

    Raises:
        ValueError: If no frame can be read.
    """

    def __init__(self, path: str | int) -> None:
        self.path = path
        self.name = f'camera {path}' if isinstance(path, int) else path
        if not _is_utf8(self.name):  # would end the process
            raise ValueError(
                f'{self.name!a}: OpenCV opens no video whose name is not UTF-8; rename it'
            )
        capture = cv2.VideoCapture(path)
        # A video of no frames opens, too.
        readable = capture.isOpened() and capture.read()[0]
        self.fps = capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.incomplete = ''
        self._count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if not readable:
            kind = 'camera' if isinstance(path, int) else 'video'
            raise ValueError(f'{self.name}: no frame of this {kind} can be read')

    def __len__(self) -> int:
        """Return the number of frames as the file tells it, 0 where it does not."""
        return max(self._count, 0)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; those of a camera do not end."""
        capture = cv2.VideoCapture(self.path)
        try:
            index = 0
            while True:
                good, pixels = capture.read()
                if not good:
                    if index < len(self) and self.name.lower().endswith(_COUNTING):
                        read = f'{index} of {len(self)} frames could be read'
                        self.incomplete = f'{self.name}: {read}; it is damaged or not whole'
                    return
                yield Frame(pixels, index)
                index += 1
        finally:
            capture.release()


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a byte of the name that is no UTF-8
        return False
    return True


Source = Image | Video


def find_sources(inputs: Sequence[str | Path | int]) -> list[Source]:
    """Find what a user names.

    A folder stands for the images in it, without its subfolders, in the order of their names; a glob
    (``*``, ``?``, ``[...]``; ``**`` goes into subfolders) for the images and videos that fit; a number
    for a camera. What is named twice is taken once.

    Args:
        inputs: Image files, folders, globs, video files, numbers of cameras.

    Raises:
        FileNotFoundError: If there is no such file, or none fits a glob.
        ValueError: If an input is none of these, a folder has no image, or no frame of a video or camera
            can be read.
    """
    found: dict[str | int, str | int] = {}
    for item in inputs:
        for path in _expand(item):
            found.setdefault(path if isinstance(path, int) else os.path.abspath(path), path)
    return [
        Video(path) if isinstance(path, int) or _is(path, VIDEO_SUFFIXES) else Image(path)
        for path in found.values()
    ]


def _expand(item: str | Path | int) -> list[str | int]:
    if isinstance(item, int):
        return [item]
    if not isinstance(item, str | os.PathLike):
        raise ValueError(
            f'{type(item).__name__}: no input; give files, folders, globs, numbers of cameras, or BGR pixels '
            'as a NumPy array (of a PIL image: numpy.asarray(image)[..., ::-1])'
        )
    text = str(item)
    path = Path(item)
    if path.is_dir():
        files = sorted(str(file) for file in path.iterdir() if _is(file, IMAGE_SUFFIXES))
        if not files:
            raise ValueError(f'{item}: no images in this folder ({", ".join(IMAGE_SUFFIXES)})')
        return files
    if path.is_file():
        return [text]
    if text.isdecimal() and len(text) < 10:  # fits into OpenCV's integer
        return [int(text)]
    if glob.has_magic(text):
        known = IMAGE_SUFFIXES + VIDEO_SUFFIXES
        files = sorted(file for file in glob.glob(text, recursive=True) if _is(file, known))
        if not files:
            raise FileNotFoundError(f'{item}: no image and no video fits')
        return files
    raise FileNotFoundError(f'{item}: no such image, folder or video')


def _is(path: str | Path, suffixes: tuple[str, ...]) -> bool:
    return Path(path).suffix.lower() in suffixes and Path(path).is_file()
