"""From the pixels of an image to the input of an exported graph."""

from typing import Any

import cv2
import numpy as np

from .pixels import check_pixels


def prepare(image: np.ndarray, spec: dict[str, Any]) -> tuple[np.ndarray, tuple[float, float]]:
    """Resize, pad and reorder an image as MMDetection's test pipeline does.

    Args:
        image: BGR pixels, uint8 (height, width, 3).
        spec: The entry ``input`` of the file's description.

    Returns:
        uint8 (3, H, W), and the factors from the image's width and height to those in the input.

    Raises:
        ValueError: If it is no such image.
    """
    check_pixels(image)
    height, width = image.shape[:2]
    new_width, new_height = _new_size(width, height, spec)
    resized = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    if spec['channels'] == 'rgb':
        resized = resized[..., ::-1]
    out = np.full((3, *spec['size']), spec['pad'], np.uint8)
    out[:, :new_height, :new_width] = resized.transpose(2, 0, 1)
    return out, (new_width / width, new_height / height)


def _new_size(width: int, height: int, spec: dict[str, Any]) -> tuple[int, int]:
    """Return the width and height that an image gets."""
    most_height, most_width = spec['size']
    if not spec['keep_ratio']:
        return tuple(spec['scale'])
    long, short = max(spec['scale']), min(spec['scale'])
    factor = min(long / max(width, height), short / min(width, height))
    # An upright image in a flat input.
    factor = min(factor, most_width / width, most_height / height)
    return (
        min(max(int(width * factor + 0.5), 1), most_width),
        min(max(int(height * factor + 0.5), 1), most_height),
    )
