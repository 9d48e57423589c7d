"""What was found on one image, and the same as COCO JSON."""

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Detections:
    """The detections of one image, by falling score.

    Attributes:
        boxes: float32 (N, 4): left, top, right and bottom in pixels of the original image, from 0.
        scores: float32 (N,), from 0 to 1.
        labels: int64 (N,): index into ``classes``.
        classes: Names of all classes of the model.
        size: Height and width of the original image.
        source: File, or ``camera 0``, or ``array`` for an image that was given as one.
        frame: Number of the frame of a video or camera from 0, None for an image.

    Raises:
        ValueError: If the arrays do not fit each other or the classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    size: tuple[int, int]
    source: str
    frame: int | None = None

    def __post_init__(self) -> None:
        number = len(self.scores)
        if self.boxes.shape != (number, 4) or self.labels.shape != (number,):
            raise ValueError(
                f'Detections: {number} scores, boxes of shape {self.boxes.shape} and labels of shape '
                f'{self.labels.shape}'
            )
        if number and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise ValueError(
                f'Detections: labels up to {self.labels.max()}, {len(self.classes)} classes'
            )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class of each detection."""
        return [self.classes[label] for label in self.labels]


def to_coco(results: Iterable[Detections], classes: tuple[str, ...], **info: Any) -> dict[str, Any]:
    """Return detections as a COCO data set whose annotations are in the COCO results format.

    ``images`` names the files (and ``frame`` of a video), also those on which nothing was found;
    ``categories`` the classes, whose ids count from 1. ``annotations`` has ``image_id``,
    ``category_id``, ``bbox`` (left, top, width, height in pixels) and ``score``, as
    ``pycocotools.coco.COCO.loadRes`` takes them, and ``id``, ``area`` and ``iscrowd``, with which the
    whole also loads as a data set.

    Args:
        results: Detections of a model, image by image.
        classes: The model's classes.
        **info: What goes under ``info``.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, found in enumerate(results, start=1):
        height, width = found.size
        image = dict(id=image_id, file_name=found.source, width=width, height=height)
        images.append(image if found.frame is None else {**image, 'frame': found.frame})
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
            left, top, right, bottom = map(float, box)
            box_width, box_height = right - left, bottom - top
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=int(label) + 1,
                    bbox=[round(side, 3) for side in (left, top, box_width, box_height)],
                    score=round(float(score), 5),
                    area=round(box_width * box_height, 3),
                    iscrowd=0,
                )
            )
    categories = [dict(id=index, name=name) for index, name in enumerate(classes, start=1)]
    return dict(info=info, images=images, categories=categories, annotations=annotations)


def check_threshold(score_thr: float) -> None:
    """Make sure that a least score can be one.

    Raises:
        ValueError: If it is not a number from 0 to 1.
    """
    if not isinstance(score_thr, Real) or not 0 <= score_thr <= 1:
        raise ValueError(f'score_thr {score_thr!r}: must be a number from 0 to 1')
