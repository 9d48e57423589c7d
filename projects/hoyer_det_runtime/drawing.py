"""Draws detections into a picture."""

import cv2
import numpy as np

from .detections import Detections

_MIN_SIDE = 400  # pixels; smaller pictures are enlarged, or the labels would cover them
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE = (255, 255, 255)


def draw(pixels: np.ndarray, detections: Detections) -> np.ndarray:
    """Draw boxes with their classes and scores; the best stay on top.

    Pictures with no side of at least 400 pixels are enlarged; in large ones lines and letters grow with them.

    Args:
        pixels: BGR, uint8 (height, width, 3).
        detections: What was found on it.

    Returns:
        A new picture, BGR, uint8 (height, width, 3).
    """
    scale = max(_MIN_SIDE / max(pixels.shape[:2]), 1.0)
    picture = cv2.resize(pixels, None, fx=scale, fy=scale)
    large = max(max(picture.shape[:2]) / 1000, 1.0)
    last = np.array(picture.shape[1::-1] * 2) - 1
    line, letters, stroke = round(2 * large), 0.45 * large, round(large)
    for index in reversed(range(len(detections))):
        # Of a box that ends beside the picture the sides would not be seen.
        box = np.rint(detections.boxes[index] * scale).clip(0, last)
        left, top, right, bottom = box.astype(int).tolist()
        colour = _colour(int(detections.labels[index]))
        cv2.rectangle(picture, (left, top), (right, bottom), colour, line)
        text = f'{detections.names[index]}: {detections.scores[index]:.2f}'
        (width, height), low = cv2.getTextSize(text, _FONT, letters, stroke)
        # Above the box, but inside the picture.
        left = max(min(left, picture.shape[1] - width), 0)
        top = max(top, height + low)
        cv2.rectangle(picture, (left, top - height - low), (left + width, top), colour, cv2.FILLED)
        cv2.putText(picture, text, (left, top - low), _FONT, letters, _WHITE, stroke, cv2.LINE_AA)
    return picture


def _colour(label: int) -> tuple[int, int, int]:
    """Return a dark colour of its own for each label, BGR."""
    hue = np.uint8([[[label * 47 % 180, 200, 170]]])
    return tuple(map(int, cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0]))
