"""Pictures of detections."""

import numpy as np
import pytest
from hoyer_det_runtime import Detections
from hoyer_det_runtime.drawing import draw


def detections(*boxes: list[float], size: tuple[int, int]) -> Detections:
    """Return one detection for each box, of classes of their own, the best first."""
    return Detections(
        boxes=np.float32(boxes).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, len(boxes), dtype=np.float32),
        labels=np.arange(len(boxes)),
        classes=tuple('abcdefgh'[: max(len(boxes), 1)]),
        size=size,
        source='array',
    )


@pytest.mark.parametrize('size, drawn', [((80, 96), (333, 400)), ((500, 450), (500, 450))])
def test_small_images_are_enlarged_and_no_image_is_changed(size, drawn):
    image = np.zeros((*size, 3), np.uint8)
    picture = draw(image, detections([10, 10, 60, 50], size=size))
    assert picture.shape == (*drawn, 3) and picture.any() and not image.any()
    without = draw(image, detections(size=size))
    assert without.shape == (*drawn, 3) and not without.any()


def test_boxes_are_where_the_detections_are_each_class_in_its_colour():
    image = np.zeros((500, 450, 3), np.uint8)
    boxes = [[50, 100, 150, 200], [250, 300, 400, 450]]
    picture = draw(image, detections(*boxes, size=(500, 450)))
    colours = []
    for left, top, right, bottom in boxes:
        sides = [picture[y, x] for y, x in ((bottom, left), (bottom, right), (top + 50, right))]
        assert all((side == sides[0]).all() and side.any() for side in sides)
        inside = picture[top + 20 : bottom - 5, left + 20 : right - 5]
        assert not inside.any()
        colours.append(sides[0].tolist())
    assert colours[0] != colours[1]


def test_all_sides_of_a_box_of_the_whole_image_are_seen():
    picture = draw(np.zeros((500, 450, 3), np.uint8), detections([0, 0, 450, 500], size=(500, 450)))
    assert (
        picture[-1].any(-1).all() and picture[:, -1].any(-1).all() and picture[:, 0].any(-1).all()
    )
    outside = draw(
        np.zeros((500, 450, 3), np.uint8), detections([-9, 5, 460, 520], size=(500, 450))
    )
    assert outside[-1].any(-1).all() and outside[30:, 0].any(-1).all()


def test_the_best_detection_lies_on_top():
    box = [50, 100, 150, 200]
    image = np.zeros((500, 450, 3), np.uint8)
    both, best = detections(box, box, size=(500, 450)), detections(box, size=(500, 450))
    np.testing.assert_array_equal(draw(image, both)[190, 50], draw(image, best)[190, 50])


def test_labels_stay_in_the_picture_and_grow_with_it():
    def label_height(side: int) -> int:
        """Return the rows above the box that its label covers, all in white and its colour."""
        box = [side // 2, side // 2, side // 2 + 50, side // 2 + 50]
        picture = draw(np.zeros((side, side, 3), np.uint8), detections(box, size=(side, side)))
        return int(picture[: side // 2 - 10].any((1, 2)).sum())

    assert label_height(3000) > 2 * label_height(900) > 0
    for corner in ([0, 0, 20, 20], [580, 0, 600, 20]):
        image = np.zeros((600, 600, 3), np.uint8)
        picture = draw(image, detections(corner, size=(600, 600)))
        white = np.argwhere((picture == 255).all(-1))
        inner = draw(image, detections([300, 300, 320, 320], size=(600, 600)))
        assert len(white) == ((inner == 255).all(-1)).sum()  # nothing of the letters is cut off
