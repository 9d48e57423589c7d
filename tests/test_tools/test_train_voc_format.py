"""A user's own folder in Pascal VOC layout: train and test with the config as it is."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import voc_object, write_split, write_voc_image

CONFIG = 'configs/hoyer_ssd_vocformat.py'
SMALL = [
    'train_dataloader.batch_size=2',
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'default_hooks.logger.interval=1',
    'default_hooks.visualization.num_images=0',
]


def write_folder(root: Path) -> None:
    """Classes of their own, two kinds of images, a box without area in each split."""
    flat = voc_object('screw', 40, 20, 40, 60)
    images = {
        'train_jpg': ([voc_object('washer'), flat], '.jpg'),
        'train_png': ([voc_object('screw', 5, 5, 80, 40), voc_object('hex nut')], '.png'),
        'train_empty': ([], '.jpg'),
        'train_more': ([voc_object('hex nut', 20, 20, 90, 70)], '.png'),
        'test_jpg': ([voc_object('washer'), voc_object('screw', 5, 5, 80, 40)], '.jpg'),
        'test_png': ([voc_object('hex nut'), flat], '.png'),
        'test_empty': ([], '.png'),
    }
    for seed, (name, (objects, suffix)) in enumerate(images.items()):
        write_voc_image(root, name, objects, suffix=suffix, seed=seed)
    write_split(root, 'trainval', [name for name in images if name.startswith('train')])
    write_split(root, 'test', [name for name in images if name.startswith('test')])


def test_own_data_trains_and_tests(tmp_path: Path, run_tool: Callable) -> None:
    data, work_dir = tmp_path / 'my parts', tmp_path / 'work'
    write_folder(data)
    common = ['--work-dir', work_dir, '--cfg-options', f'data_root={data}', *SMALL]
    trained = run_tool('train', CONFIG, *common)
    assert trained.returncode == 0, trained.stderr
    assert (
        '3 classes (hex nut, screw, washer), trained on trainval, evaluated on test'
        in trained.stdout
    )
    flat = [line for line in trained.stdout.splitlines() if 'zero area' in line]
    assert len([line for line in flat if 'trainval.txt: 1 boxes' in line]) == 1
    assert len([line for line in flat if '/test.txt: 1 boxes' in line]) == 1
    assert any('train_jpg' in line for line in flat) and any('test_png' in line for line in flat)

    scalars = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    records = [json.loads(line) for line in scalars]
    steps = [record for record in records if 'loss' in record]
    assert len(steps) == 1  # three images with objects hold one batch of two
    assert all(math.isfinite(step[key]) for step in steps for key in step)
    validated = next(record for record in records if 'coco/bbox_mAP' in record)

    tested = run_tool('test', CONFIG, work_dir / 'epoch_1.pth', *common)
    assert tested.returncode == 0, tested.stderr
    metrics = json.loads(max(work_dir.glob('*/[0-9]*.json')).read_text())
    for key in ('pascal_voc/mAP', 'coco/bbox_mAP', 'coco/bbox_mAP_50'):
        assert metrics[key] == pytest.approx(validated[key], abs=1e-6)

    report = tmp_path / 'report'
    counted = run_tool(
        *('analyze', CONFIG, work_dir / 'epoch_1.pth', '--images', 2, '--out', report),
        *('--runs', 0, '--maps', 'stages.0', '--map-images', 1),
        *('--cfg-options', f'data_root={data}'),
    )
    assert counted.returncode == 0, counted.stderr
    summary = json.loads((report / 'summary.json').read_text())
    (model,) = summary['models'].values()
    assert model['totals']['images'] == 2
    inputs = {row['layer']: row['input'] for row in model['layers'] if row['dense_macs']}
    assert inputs.pop('backbone.stages.0.0.conv') == 'real'
    assert list(inputs.values()) == ['0/1'] * 21
