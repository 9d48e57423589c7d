"""A user's own annotations in COCO format: train and test with the config as it is."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from coco_folder import write_coco_folder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CONFIG = 'configs/hoyer_yolov3_cocoformat.py'
NAMES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


def test_own_data_trains_and_tests(tmp_path: Path, run_tool: Callable) -> None:
    data, work_dir = tmp_path / 'my cells', tmp_path / 'work'
    write_coco_folder(data)
    options = [
        f'data_root={data}',
        'train_dataloader.batch_size=2',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'default_hooks.logger.interval=1',
        'default_hooks.visualization.num_images=0',
        'model.test_cfg.score_thr=0',  # an untrained network finds something
        *(f'{loader}_dataloader.num_workers=0' for loader in ('train', 'val', 'test')),
        *(f'{loader}_dataloader.persistent_workers=False' for loader in ('train', 'val', 'test')),
    ]
    common = ['--work-dir', work_dir, '--cfg-options', *options]
    trained = run_tool('train', CONFIG, *common)
    assert trained.returncode == 0, trained.stderr
    assert '3 classes (Zelle ä, ring, dot), trained on annotations/instances_' in trained.stdout
    assert 'instances_train2017.json: 1 boxes left out' in trained.stdout

    scalars = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    records = [json.loads(line) for line in scalars]
    steps = [record for record in records if 'loss' in record]
    assert len(steps) == 1  # of five images three can be learnt from: one batch of two
    assert all(math.isfinite(step[key]) for step in steps for key in step)
    validated = next(record for record in records if 'coco/bbox_mAP' in record)
    events = EventAccumulator(str(next(work_dir.glob('*/vis_data'))))
    events.Reload()
    for tag in ('loss', 'coco/bbox_mAP'):  # over the same axis: after the one iteration
        assert [(event.step, event.value) for event in events.Scalars(tag)] == [
            (1, pytest.approx(validated.get(tag, steps[0].get(tag))))
        ]

    tested = run_tool('test', CONFIG, work_dir / 'epoch_1.pth', *common)
    assert tested.returncode == 0, tested.stderr
    printed = re.findall(
        r'^ Average (?:Precision|Recall) +\(A[PR]\) @\[ IoU=0\.[0-9.:]+ +\| area= *\w+ \| '
        r'maxDets= *\d+ \] = (-?\d\.\d{3})$',
        tested.stdout,
        re.MULTILINE,
    )
    assert len(printed) == 12
    metrics = json.loads(max(work_dir.glob('*/[0-9]*.json')).read_text())
    values = [metrics[f'coco/bbox_{name}'] for name in NAMES]
    assert values == pytest.approx([float(text) for text in printed[:6]])
    assert values == pytest.approx([validated[f'coco/bbox_{name}'] for name in NAMES], abs=1e-6)
