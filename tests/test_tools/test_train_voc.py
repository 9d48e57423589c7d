"""The Pascal VOC config, but for an eighth of its width, on a miniature VOCdevkit: train, resume, test."""

import json
import math
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import hoyer_det  # noqa: F401  mends the pinned packages, before mmdet is imported
import pytest
import torch
from conftest import voc_object, write_split, write_voc_image
from mmdet.registry import METRICS

CONFIG = 'configs/hoyer_ssd_voc.py'
Tool = Callable[..., subprocess.CompletedProcess[str]]


def write_devkit(root: Path) -> None:
    """Three images to train on and two to test on, with objects of Pascal VOC's own classes."""
    for index, (year, names) in enumerate(
        {'VOC2007': ['000001', '000002', '000003', '000004'], 'VOC2012': ['2008_000001']}.items()
    ):
        for name in names:
            objects = [
                voc_object('person', 5, 5, 60, 70),
                voc_object('dog', 30, 20, 90, 75),
                voc_object('cat', 50, 40, 80, 60, difficult=True),
            ]
            write_voc_image(root / year, name, objects[: 1 + int(name[-1]) % 3], seed=index)
    write_split(root / 'VOC2007', 'trainval', ['000001', '000002'])
    write_split(root / 'VOC2007', 'test', ['000003', '000004'])
    write_split(root / 'VOC2012', 'trainval', ['2008_000001'])


def options(data: Path) -> list[str]:
    """Everything that a CPU with one core needs changed; the network has an eighth of its width."""
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [
        '--cfg-options',
        f'data_root={data}',
        'model.backbone.init_cfg=None',  # no download
        'model.backbone.width=0.125',
        'model.neck.in_channels=(64,128)',
        *(f'model.{part}_channels=(64,128,64,32,32,32)' for part in ('neck.out', 'bbox_head.in')),
        'model.test_cfg.max_per_img=5',  # of the boxes of an untrained network, which are drawn
        'train_dataloader.batch_size=2',
        'train_dataloader.dataset.times=1',
        *(f'{loader}.num_workers=0' for loader in loaders),
        *(f'{loader}.persistent_workers=False' for loader in loaders),
        'default_hooks.logger.interval=1',
    ]


def records(work_dir: Path) -> list[dict]:
    """Return the records of the newest run, one a logged step."""
    newest = max(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in newest.read_text().splitlines()]


def test_voc_config_trains_resumes_and_tests(tmp_path: Path, run_tool: Tool) -> None:
    data, work_dir = tmp_path / 'VOCdevkit', tmp_path / 'work'
    write_devkit(data)
    common = ['--work-dir', work_dir, *options(data)]

    trained = run_tool('train', CONFIG, *common, 'train_cfg.max_epochs=1')
    assert trained.returncode == 0, trained.stderr
    assert (work_dir / 'epoch_1.pth').is_file()
    assert 'pascal_voc/mAP:' in trained.stdout and 'coco/bbox_mAP:' in trained.stdout
    first = records(work_dir)
    steps = [record for record in first if 'loss' in record]
    # One step: the three images hold one batch of two, the last is dropped.
    assert [record['epoch'] for record in steps] == [1]
    assert {'loss_cls', 'loss_bbox', 'loss_hoyer'} <= steps[0].keys()
    assert all(math.isfinite(value) for value in steps[0].values())
    assert 0 <= first[-1]['pascal_voc/mAP'] <= 1
    assert list(work_dir.glob('*/vis_data/events.out.tfevents.*'))
    pictures = {path.name for path in work_dir.glob('*/vis_data/vis_image/*')}
    assert pictures == {'val_000003_1.png', 'val_000004_1.png'}
    assert f'Checkpoints, logs and pictures of detections: {work_dir}' in trained.stdout

    shutil.rmtree(next(work_dir.glob('*/vis_data/vis_image')))
    none = 'default_hooks.visualization.num_images=0'
    resumed = run_tool('train', CONFIG, '--resume', *common, 'train_cfg.max_epochs=2', none)
    assert f'Checkpoints and logs: {work_dir}' in resumed.stdout
    assert resumed.returncode == 0, resumed.stderr
    assert 'resumed epoch: 1' in resumed.stdout
    second = records(work_dir)
    resumed_steps = [record for record in second if 'loss' in record]
    assert [record['epoch'] for record in resumed_steps] == [2]
    # The warm-up goes on where it stopped.
    assert resumed_steps[0]['lr'] > steps[0]['lr']

    shown, dumped = tmp_path / 'shown', tmp_path / 'new' / 'predictions.pkl'
    flags = ['--out', dumped, '--show-dir', shown, *common]
    tested = run_tool('test', CONFIG, work_dir / 'epoch_2.pth', *flags)
    assert tested.returncode == 0, tested.stderr
    validated = second[-1]
    metrics = json.loads(max(work_dir.glob('*/[0-9]*.json')).read_text())
    for key in ('pascal_voc/mAP', 'coco/bbox_mAP', 'coco/bbox_mAP_50'):
        assert metrics[key] == pytest.approx(validated[key], abs=1e-6)
    predictions = pickle.loads(dumped.read_bytes())
    assert [Path(item['img_path']).stem for item in predictions] == ['000003', '000004']
    assert all(item['pred_instances']['bboxes'].shape[1] == 4 for item in predictions)
    assert len(list(tmp_path.glob('**/shown/**/*.jpg'))) == 2


def test_coco_metric_survives_an_evaluation_without_any_detection() -> None:
    metric = METRICS.build(dict(type='CocoMetric', metric='bbox'))
    metric.dataset_meta = dict(classes=('person', 'dog'))
    sample = dict(
        img_id='000003',
        ori_shape=(80, 96),
        instances=[dict(bbox=[4, 4, 59, 69], bbox_label=0, ignore_flag=0)],
        pred_instances=dict(
            bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.long)
        ),
    )
    metric.process({}, [sample])
    assert not [key for key in metric.evaluate(size=1) if key.startswith('coco/bbox_mAP')]
