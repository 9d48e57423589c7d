"""COCO's metric counts what the data set has; another file is an error before the training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_folder import change, write_coco, write_coco_folder
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.datasets.check import check_datasets
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config

COCO = CONFIGS / 'hoyer_ssd_cocoformat.py'
PIPELINE = 'val_dataloader.dataset.pipeline'
MASKS = {'val_evaluator.metric': ['bbox', 'segm']}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco_folder(tmp_path / 'coco')


def own_file(root: Path) -> Path:
    return root / 'annotations' / 'instances_val2017.json'


def precision(cfg: Config) -> float:
    """Return COCO AP of the true boxes as detections, by the config's pipeline and metric."""
    data = DATASETS.build(cfg.val_dataloader.dataset)
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = data.metainfo
    for item in data:
        sample = item['data_samples'].to_dict()
        boxes = [box for box in sample['instances'] if not box['ignore_flag']]
        sample['pred_instances'] = dict(
            bboxes=torch.tensor(np.reshape([box['bbox'] for box in boxes], (-1, 4))),
            labels=torch.tensor([box['bbox_label'] for box in boxes], dtype=torch.long),
            scores=torch.ones(len(boxes)),
        )
        metric.process({}, [sample])
    return metric.evaluate(len(data))['coco/bbox_mAP']


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'val_dataloader.dataset.indices': 2},
        {f'{PIPELINE}.3.meta_keys': ('img_id', 'img_path', 'ori_shape')},
        {f'{PIPELINE}.3.meta_keys': ('img_path',), 'val_evaluator.ann_file': None},
    ],
    ids=['categories in another order', 'some of the images', 'no ground truth', 'neither'],
)
def test_true_boxes_reach_full_precision_whatever_the_file_has(
    root: Path, options: dict[str, Any]
) -> None:
    # Its categories are not in the order of their ids, and one of its boxes is too narrow to be found.
    options = {'data_root': str(root), 'val_evaluator.ann_file': str(own_file(root)), **options}
    assert precision(load_config(COCO, options)) == 1.0


def test_a_pipeline_for_augmented_tests_hands_on_the_objects_too(root: Path) -> None:
    packed = dict(type='PackDetInputs', meta_keys=('img_id', 'flip'))
    augmented = [dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip')], [packed]])]
    cfg = Config.fromfile(COCO)
    cfg.tta_pipeline, cfg.data_root = augmented, str(root)
    path = root / 'with_tta.py'
    cfg.dump(path)
    found = load_config(path).tta_pipeline[0].transforms[1][0].meta_keys
    assert found == ('img_id', 'flip', 'ori_shape', 'instances')


def test_for_masks_the_file_stays_with_its_categories_sorted(root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root.parent)
    name = 'coco/../coco/annotations/instances_val2017.json'
    metric = load_config(
        COCO, {'data_root': str(root), 'val_evaluator.ann_file': name, **MASKS}
    ).val_evaluator
    assert (metric.ann_file, metric.sort_categories) == (name, True)


def faults(options: dict[str, Any]) -> list[str]:
    """Return what stops a training, which is what check-data says of the same config."""
    report = check_datasets(load_config(COCO, options, complete=False), decode=False)
    told = [f'{p.source}: {p.detail}' for p in report.problems if p.kind == 'file unusable']
    with pytest.raises(ValueError) as error:
        load_config(COCO, options)
    assert told == [str(error.value)]
    return told


@pytest.mark.parametrize('split', ['val', 'test'])
@pytest.mark.parametrize('name', ['other2017', 'lost'])
def test_another_file_is_refused(root: Path, split: str, name: str) -> None:
    other = write_coco(root, 'other2017').with_name(f'instances_{name}.json')
    (line,) = faults({'data_root': str(root), f'{split}_evaluator.ann_file': str(other)})
    assert line.startswith(
        f'{split}_evaluator.ann_file={other}: is not the file that {split}_dataloader evaluates'
    )
    assert 'instances_val2017.json; name that one' in line


def test_evaluators_of_a_list_are_named_by_their_number(root: Path) -> None:
    both = [dict(type='VOCMetric', metric='mAP'), dict(type='CocoMetric', ann_file='lost.json')]
    (line,) = faults({'data_root': str(root), 'val_evaluator': both})
    assert line.startswith('val_evaluator.1.ann_file=lost.json: ')


@pytest.mark.parametrize('second', ['CocoFormatDataset', 'CocoDataset'])
def test_of_several_data_sets_the_metric_may_read_a_file_that_holds_all(
    root: Path, second: str
) -> None:
    change(own_file(root), lambda content: content['categories'].sort(key=lambda c: c['id']))
    first = load_config(COCO, {'data_root': str(root)}).val_dataloader.dataset
    both = dict(type='ConcatDataset', datasets=[first, {**first, 'type': second}])
    options = {
        'val_dataloader.dataset': dict(both, _delete_=True),
        'val_evaluator.ann_file': 'all.json',
    }
    cfg = load_config(COCO, {'data_root': str(root), **options})
    assert cfg.val_evaluator.ann_file == 'all.json'
