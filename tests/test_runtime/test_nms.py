"""Detections of an exported graph, by hand."""

import numpy as np
import pytest
from hoyer_det_runtime.nms import select

SPEC = dict(
    **dict(score_thr=0.1, nms_pre=-1, levels=[4], clip=True, min_bbox_size=-1),
    **dict(nms_iou=0.5, nms_class_agnostic=False, max_per_img=9),
)
# The second overlaps the first by an IoU of 80 / 120; the last two stand apart.
BOXES = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)
SCORES = np.array([[0.9], [0.8], [0.3], [0.1]], np.float32)


@pytest.mark.parametrize(
    'score_thr, kept',
    [(0.0, [0, 2]), (0.3, [0, 2]), (0.31, [0]), (0.9, [0]), (1.0, [])],
)
def test_least_score_is_kept_and_that_of_the_file_is_not(score_thr, kept):
    boxes, scores, labels = select(BOXES, SCORES, SPEC, (1.0, 1.0), (100, 100), score_thr)
    np.testing.assert_array_equal(boxes, BOXES[kept])
    np.testing.assert_array_equal(scores, SCORES[kept, 0])
    assert (labels == 0).all()


def test_boxes_outside_the_image_leave_room_for_others_where_boxes_are_not_cut_off():
    outside = np.array(
        [[60, 0, 70, 10], [-9, 0, 0, 10], [0, 50, 10, 60], [0, -9, 10, 0]], np.float32
    )
    boxes, scores = np.concatenate([outside, BOXES]), np.concatenate([SCORES + 0.05, SCORES])
    spec = {**SPEC, 'clip': False, 'max_per_img': 2}
    found, *_ = select(boxes, scores, spec, (1.0, 1.0), (50, 60))
    np.testing.assert_array_equal(found, BOXES[[0, 2]])


def test_boxes_are_in_pixels_of_the_image_and_inside_it():
    boxes, *_ = select(BOXES, SCORES, SPEC, (0.5, 2.0), (4, 50))
    np.testing.assert_array_equal(boxes, [[0, 0, 20, 4], [40, 0, 50, 4]])
