"""What the quick crop leaves out no crop can have, and what it keeps is MMDetection's own."""

import itertools

import numpy as np
import pytest
import torch
from hoyer_det.datasets import QuickMinIoURandomCrop
from mmdet.datasets.transforms import MinIoURandomCrop
from mmdet.structures.bbox import HorizontalBoxes

HEIGHT, WIDTH = 10, 12
MODES = (0.3, 0.5, 0.6, 0.7, 0.9)


def every_crop() -> HorizontalBoxes:
    """All that MMDetection may draw, and some more: it rounds, and keeps the sides' ratio below 2."""
    spans = [
        [(a, b) for a in range(side) for b in range(a + 1, side + 1) if b - a >= 0.5 * side - 1]
        for side in (WIDTH, HEIGHT)
    ]
    crops = [(x1, y1, x2, y2) for (x1, x2), (y1, y2) in itertools.product(*spans)]
    return HorizontalBoxes(torch.tensor(crops, dtype=torch.float32))


def random_boxes(seed: int) -> HorizontalBoxes:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, (rng.integers(1, 4), 2, 2))
    if seed % 2:  # boxes near each other
        corners = corners[:1] + rng.uniform(-0.1, 0.1, corners.shape)
    corners = np.sort(corners.clip(0, 1), axis=1) * (WIDTH, HEIGHT)
    return HorizontalBoxes(torch.from_numpy(corners.reshape(-1, 4)).float())


def test_no_crop_has_what_is_left_out():
    crop = QuickMinIoURandomCrop(MODES, min_crop_size=0.5)
    crops, left_out, reached = every_crop(), 0, 0
    for seed in range(300):
        boxes = random_boxes(seed)
        possible = crop.possible_modes(boxes, HEIGHT, WIDTH)
        best = float(HorizontalBoxes.overlaps(crops, boxes).min(1).values.max())
        impossible = set(MODES) - set(possible)
        assert all(best < mode for mode in impossible), (seed, best, impossible)
        left_out += len(impossible)
        reached += sum(best >= mode for mode in MODES)
    assert left_out > 500 and reached > 100  # both happen


@pytest.mark.parametrize('seed', range(4))
def test_all_the_rest_is_mmdetections_own(seed):
    box = torch.tensor([[1.0, 1.0, 11.0, 9.0]])  # large enough for every mode
    found = []
    for kind in (MinIoURandomCrop, QuickMinIoURandomCrop):
        np.random.seed(seed)
        image = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
        results = dict(img=image, gt_bboxes=HorizontalBoxes(box.clone()))
        results.update(gt_bboxes_labels=np.array([4]), gt_ignore_flags=np.array([False]))
        found.append(kind(MODES, min_crop_size=0.5)(results))
    theirs, ours = found
    assert np.array_equal(ours['img'], theirs['img'])
    assert torch.equal(ours['gt_bboxes'].tensor, theirs['gt_bboxes'].tensor)
    assert ours['gt_bboxes_labels'].tolist() == theirs['gt_bboxes_labels'].tolist()


def test_image_without_boxes():
    crop = QuickMinIoURandomCrop(MODES)
    results = dict(img=np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    results['gt_bboxes'] = HorizontalBoxes(torch.zeros(0, 4))
    assert crop.possible_modes(results['gt_bboxes'], HEIGHT, WIDTH) == [1, *MODES, 0]
    assert crop(results)['img'].size > 0
