"""From the boxes and scores of an exported graph to detections."""

from typing import Any

import numpy as np


def select(
    boxes: np.ndarray,
    scores: np.ndarray,
    spec: dict[str, Any],
    factors: tuple[float, float],
    size: tuple[int, int],
    score_thr: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose detections as MMDetection does: threshold, best of each level, NMS of each class.

    Where boxes are not cut off at the border, those wholly outside the image are left out: the fixed size
    of the input may leave more room beside the image than MMDetection does.

    Args:
        boxes: float32 (P, 4), left, top, right, bottom in pixels of the input.
        scores: float32 (P, classes).
        spec: The entry ``output`` of the file's description.
        factors: From the image's width and height to those in the input.
        size: Height and width of the image.
        score_thr: Least score; it has an effect where it is more than the file's own threshold.

    Returns:
        Boxes in pixels of the image (N, 4), scores (N,) and labels (N,), by falling score.
    """
    # A detection of just score_thr is one, as for a checkpoint; MMDetection's own threshold excludes it.
    threshold = max(np.nextafter(np.float32(score_thr), np.float32(-1)), spec['score_thr'])
    chosen, labels = _candidates(scores, threshold, spec['levels'], spec['nms_pre'])
    found = boxes[chosen] / np.array([*factors, *factors], np.float32)
    values = scores[chosen, labels]
    if spec['clip']:
        found = found.clip(0, np.array([size[1], size[0]] * 2, np.float32))
    else:
        seen = ((found[:, 2:] > 0) & (found[:, :2] < (size[1], size[0]))).all(1)
        found, values, labels = found[seen], values[seen], labels[seen]
    if spec['min_bbox_size'] >= 0:
        large = (found[:, 2:] - found[:, :2] > spec['min_bbox_size']).all(1)
        found, values, labels = found[large], values[large], labels[large]
    order = np.argsort(-values, kind='stable')
    found, values, labels = found[order], values[order], labels[order]
    groups = np.zeros_like(labels) if spec['nms_class_agnostic'] else labels
    kept = [
        members[suppress(found[members], spec['nms_iou'])]
        for members in (np.flatnonzero(groups == group) for group in np.unique(groups))
    ]
    kept = np.sort(np.concatenate(kept))[: spec['max_per_img']] if kept else np.empty(0, np.int64)
    return found[kept], values[kept], labels[kept]


def _candidates(
    scores: np.ndarray, threshold: float, levels: list[int], most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return priors and labels of the scores above a threshold, the best of each level."""
    rows, labels = np.nonzero(scores > threshold)
    values = scores[rows, labels]
    if most > 0:
        kept = []
        ends = np.cumsum(levels)
        for start, end in zip(ends - levels, ends, strict=True):
            members = np.flatnonzero((rows >= start) & (rows < end))
            if len(members) > most:
                members = members[np.argsort(-values[members], kind='stable')[:most]]
            kept.append(members)
        members = np.concatenate(kept)
        rows, labels = rows[members], labels[members]
    return rows, labels


def suppress(boxes: np.ndarray, iou: float) -> np.ndarray:
    """Return the indices of the boxes that no better one overlaps by more than ``iou``.

    Args:
        boxes: float32 (N, 4), by falling score.
        iou: Overlap, intersection over union.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    rest = np.arange(len(boxes))
    kept = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        corner = np.maximum(boxes[best, :2], boxes[rest, :2])
        sides = (np.minimum(boxes[best, 2:], boxes[rest, 2:]) - corner).clip(0)
        common = sides[:, 0] * sides[:, 1]
        rest = rest[common <= iou * (areas[best] + areas[rest] - common)]
    return np.array(kept, np.int64)
