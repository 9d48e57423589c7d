"""COCO's metric has the ground truth of the data set that is evaluated, or an error says so before."""

from pathlib import Path
from typing import Any

import pytest
from coco_folder import write_coco, write_coco_folder
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.datasets.check import check_datasets

COCO = CONFIGS / 'hoyer_ssd_cocoformat.py'
PACK = 'val_dataloader.dataset.pipeline.3.meta_keys'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco_folder(tmp_path / 'coco')


def faults(options: dict[str, Any]) -> list[str]:
    """Return what stops a training, and what check-data says of the same config."""
    report = check_datasets(load_config(COCO, options, complete=False), decode=False)
    told = [f'{p.source}: {p.detail}' for p in report.problems if p.kind == 'file unusable']
    try:
        load_config(COCO, options)
    except ValueError as error:
        assert told == [str(error)]
        return told
    assert not told
    return []


def test_file_of_the_data_set_is_good_by_any_name(root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root.parent)
    for name in (
        root / 'annotations/instances_val2017.json',
        'coco/../coco/annotations/instances_val2017.json',
    ):
        assert faults({'data_root': str(root), 'val_evaluator.ann_file': str(name)}) == []


@pytest.mark.parametrize('split', ['val', 'test'])
@pytest.mark.parametrize('name', ['other2017', 'lost'])
def test_another_file_is_refused(root: Path, split: str, name: str) -> None:
    other = write_coco(root, 'other2017').with_name(f'instances_{name}.json')
    (line,) = faults({'data_root': str(root), f'{split}_evaluator.ann_file': str(other)})
    assert line.startswith(
        f'{split}_evaluator.ann_file={other}: is not the file that {split}_dataloader'
    )
    assert line.endswith('instances_val2017.json')


def test_evaluators_of_a_list_are_named_by_their_number(root: Path) -> None:
    both = [dict(type='VOCMetric', metric='mAP'), dict(type='CocoMetric', ann_file='lost.json')]
    (line,) = faults({'data_root': str(root), 'val_evaluator': both})
    assert line.startswith('val_evaluator.1.ann_file=lost.json: ')


def test_samples_without_ground_truth_need_a_file(root: Path) -> None:
    options = {'data_root': str(root), PACK: ('img_id', 'ori_shape')}
    (line,) = faults(options)
    assert (
        line.startswith('val_evaluator: has no ground truth; ')
        and 'meta_keys of PackDetInputs' in line
    )
    file = root / 'annotations' / 'instances_val2017.json'
    assert faults({**options, 'val_evaluator.ann_file': str(file)}) == []
