"""The pixels of an image, from a file or as they are given."""

from pathlib import Path

import cv2
import numpy as np


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file as BGR pixels, uint8 (height, width, 3).

    It is decoded from memory: OpenCV's own reading fills up what a truncated file lacks and ends the
    process where a file name is not UTF-8.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder, or cannot be read as an image.
    """
    if Path(path).is_dir():
        raise ValueError(f'{path}: is a folder; name the images in it')
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        data = np.fromfile(path, np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):
        pixels = None
    if pixels is None:
        raise ValueError(f'{path}: cannot be read as an image')
    return pixels


def as_pixels(image: str | Path | np.ndarray) -> np.ndarray:
    """Return an array as it is, or what :func:`read_image` reads."""
    return image if isinstance(image, np.ndarray) else read_image(image)


def check_pixels(image: np.ndarray) -> None:
    """Make sure that an array is an image.

    Raises:
        ValueError: If it is not BGR pixels of uint8, (height, width, 3).
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f'an image must be BGR pixels of uint8, (height, width, 3), not {image.dtype} {image.shape}'
        )
