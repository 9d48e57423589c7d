"""The size of an image as MMDetection reads it, and whether its annotation declares the same."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose
from PIL import Image

_EXIF_ORIENTATION = 0x0112


def check_sizes(pipeline: Compose) -> None:
    """Let a pipeline compare sizes after each of its ``LoadImageFromFile``, in place.

    Args:
        pipeline: Pipeline of a data set whose samples have ``height`` and ``width``.
    """
    transforms: list[Any] = []
    for transform in pipeline.transforms:
        transforms.append(transform)
        if isinstance(transform, LoadImageFromFile):
            transforms.append(_check_size)
    pipeline.transforms = transforms


def _check_size(results: dict[str, Any]) -> dict[str, Any]:
    """Pass a sample on whose image has the declared size."""
    if 'height' in results and 'width' in results:
        fault = size_fault(
            results['img_path'], results['ori_shape'], (results['height'], results['width'])
        )
        if fault is not None:
            raise ValueError(
                f'{results["img_path"]}: {fault}; `hoyer-det check-data` lists all such files'
            )
    return results


def size_fault(path: str | Path, decoded: tuple[int, int], declared: tuple[int, int]) -> str | None:
    """Tell in which way an image disagrees with the size in its annotation.

    Images are read as MMDetection reads them, that is turned as their EXIF orientation asks, so the
    annotation must be that of the turned image.

    Args:
        path: Image file.
        decoded: Height and width of the decoded image in pixels.
        declared: Height and width in the annotation.

    Returns:
        Half a sentence, or None where the two agree.
    """
    if tuple(decoded) == tuple(declared):
        return None
    sizes = (
        f'the image is {decoded[1]} x {decoded[0]} pixels, its annotation says '
        f'{declared[1]} x {declared[0]}'
    )
    unturned = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if unturned is not None and unturned.shape[:2] == tuple(declared):
        return (
            f'{sizes}: its EXIF orientation turns it, the annotation is of the image not turned; remove '
            'the EXIF tag or annotate what is seen'
        )
    return f'{sizes}: was it resized or exchanged later? Correct size and boxes, or leave it out'


def seen_size(path: str | Path) -> tuple[int, int]:
    """Return width and height of an image as MMDetection reads it, by OpenCV.

    It is decoded only where a tag may turn it: OpenCV and Pillow do not obey the same tags.

    Raises:
        ValueError: If it cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            if _is_upright(image, path):
                return image.size
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path}: cannot be read as an image ({error})') from None
    decoded = _decode(path, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError(f'{path}: cannot be read as an image (OpenCV cannot decode it)')
    height, width = decoded.shape[:2]
    return width, height


def _is_upright(image: Image.Image, path: str | Path) -> bool:
    """Tell whether it is sure, without decoding, that nothing turns an image."""
    if image.format == 'BMP':
        return True
    if image.format == 'PNG':  # its tags may stand at the end, where Pillow decodes it to find them
        return b'eXIf' not in Path(path).read_bytes()
    if image.format not in ('JPEG', 'MPO'):
        return False
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1) == 1
    except Exception:  # Pillow raises many kinds for a damaged tag; the image is then decoded
        return False


def _decode(path: str | Path, flags: int) -> np.ndarray | None:
    # As mmcv does; imread fails for turned TIFF.
    return cv2.imdecode(np.fromfile(path, np.uint8), flags)
