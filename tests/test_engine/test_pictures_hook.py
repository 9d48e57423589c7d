"""DetectionPicturesHook: which pictures are drawn, and what they show."""

import itertools
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hoyer_det.engine import DetectionPicturesHook
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

HEIGHT, WIDTH = 40, 60
_names = itertools.count()


@pytest.fixture
def samples(tmp_path) -> list[DetDataSample]:
    """Six grey images; each has a true box on its left and a detection of score 0.5 on its right."""
    items = []
    for index in range(6):
        path = tmp_path / f'image{index}.png'
        cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
        sample = DetDataSample(metainfo=dict(img_path=str(path)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[5.0, 5.0, 20.0, 35.0]]), labels=torch.tensor([0])
        )
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor([[40.0, 5.0, 55.0, 35.0]]),
            labels=torch.tensor([1]),
            scores=torch.tensor([0.5]),
        )
        items.append(sample)
    return items


def make_hook(folder, **options) -> DetectionPicturesHook:
    """The hook, and the visualizer that it finds."""
    init_default_scope('mmdet')
    visualizer = VISUALIZERS.build(
        dict(
            type='DetLocalVisualizer',
            name=f'pictures_{next(_names)}',
            vis_backends=[dict(type='LocalVisBackend')],
            save_dir=str(folder),
        )
    )
    visualizer.dataset_meta = dict(classes=('ring', 'star'), palette=[(255, 0, 0), (0, 0, 255)])
    return DetectionPicturesHook(**options)


def evaluate(hook, samples, task: str = 'val', epoch: int = 0, iteration: int = 0) -> None:
    """What the loop does for three batches of two images."""
    runner = SimpleNamespace(epoch=epoch, iter=iteration)
    getattr(hook, f'before_{task}_epoch')(runner)
    for index in range(3):
        outputs = samples[2 * index : 2 * index + 2]
        getattr(hook, f'after_{task}_iter')(runner, index, None, outputs)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob('vis_image/*.png'))


@pytest.mark.parametrize('task', ['val', 'test'])
def test_the_first_images_are_drawn_once_each(tmp_path, samples, task):
    folder = tmp_path / 'out'
    hook = make_hook(folder, num_images=3)
    evaluate(hook, samples, task)
    assert names(folder) == [f'{task}_image{index}_0.png' for index in range(3)]
    evaluate(hook, samples, task, epoch=7)  # the same images again, under the new epoch
    assert names(folder) == [f'{task}_image{i}_{e}.png' for i in range(3) for e in (0, 7)]


def test_iterations_count_where_there_are_no_epochs(tmp_path, samples):
    hook = make_hook(tmp_path, num_images=1)
    for iteration in (200, 400):
        evaluate(hook, samples, iteration=iteration)
    assert names(tmp_path) == ['val_image0_200.png', 'val_image0_400.png']


@pytest.mark.parametrize('score_thr', [0.3, 0.6])
def test_truth_is_left_and_confident_detections_are_right(tmp_path, samples, score_thr):
    folder = tmp_path / 'out'
    evaluate(make_hook(folder, num_images=1, score_thr=score_thr, min_side=0), samples)
    (path,) = folder.rglob('vis_image/*.png')
    picture = cv2.imread(str(path)).astype(int)
    assert picture.shape == (HEIGHT, 2 * WIDTH, 3)
    # Where a quarter of the picture differs from the grey of the image.
    drawn = [
        bool((abs(picture[:, start : start + 30] - 128) > 20).any()) for start in (0, 30, 60, 90)
    ]
    assert drawn == [True, False, False, score_thr < 0.5]


def test_small_images_are_enlarged_with_their_boxes(tmp_path, samples):
    folder = tmp_path / 'out'
    evaluate(make_hook(folder, num_images=1, min_side=10 * WIDTH), samples)
    (path,) = folder.rglob('vis_image/*.png')
    picture = cv2.imread(str(path)).astype(int)
    assert picture.shape == (10 * HEIGHT, 20 * WIDTH, 3)
    drawn = (abs(picture - 128) > 20).any(2)
    # The detection of 15 x 30 pixels at (40, 5), ten times as large on the right half.
    rows, columns = np.where(drawn[:, 10 * WIDTH :])
    corners = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
    assert np.abs(corners - [400, 50, 550, 350]).max() < 12
    assert samples[0].pred_instances.bboxes[0, 0] == 40  # what is evaluated is left alone


def test_images_with_masks_keep_their_size(tmp_path, samples):
    folder, masks = tmp_path / 'out', torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    masks[:, 5:35, 40:55] = True
    samples[0].pred_instances.masks = masks
    evaluate(make_hook(folder, num_images=1, min_side=10 * WIDTH), samples)
    (path,) = folder.rglob('vis_image/*.png')
    assert cv2.imread(str(path)).shape == (HEIGHT, 2 * WIDTH, 3)


@pytest.mark.parametrize('min_side', [0, 10 * WIDTH])
def test_boxes_over_the_edge_do_not_shift_the_picture(tmp_path, samples, min_side):
    pictures = []
    for index, box in enumerate([[40.0, 5.0, WIDTH, HEIGHT], [40.0, 5.0, 90.0, 70.0]]):
        samples[0].pred_instances.bboxes = torch.tensor([box])
        folder = tmp_path / str(index)
        evaluate(make_hook(folder, num_images=1, min_side=min_side), samples)
        (path,) = folder.rglob('vis_image/*.png')
        pictures.append(cv2.imread(str(path)))
    assert np.array_equal(*pictures)


def test_images_without_annotations_are_drawn(tmp_path, samples):
    for sample in samples:
        del sample.gt_instances
    evaluate(make_hook(tmp_path / 'out', num_images=2), samples)
    assert len(names(tmp_path / 'out')) == 2


def test_no_pictures_when_none_are_wanted(tmp_path, samples):
    folder = tmp_path / 'out'
    for task in ('val', 'test'):
        evaluate(make_hook(folder, num_images=0), samples, task)
    assert names(folder) == []


def test_more_pictures_wanted_than_there_are_images(tmp_path, samples):
    folder = tmp_path / 'out'
    evaluate(make_hook(folder), samples)
    assert len(names(folder)) == 6


def test_show_dir_keeps_every_test_image(tmp_path, samples):
    hook = make_hook(tmp_path / 'out', num_images=1, draw=True, test_out_dir='kept')
    runner = SimpleNamespace(epoch=0, iter=0, work_dir=str(tmp_path), timestamp='now')
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 0, None, samples[:2])
    assert len(list((tmp_path / 'now' / 'kept').iterdir())) == 2
