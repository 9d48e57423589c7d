"""Configs for annotations in COCO format fit themselves to the files they are given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coco_folder import CATEGORIES, CLASSES, change, write_coco, write_coco_folder
from conftest import CONFIGS
from hoyer_det.config import dataset_classes, load_config
from mmengine.config import Config

NAME = CONFIGS / 'hoyer_yolov3_cocoformat.py'
TRAIN, VAL = (f'annotations/instances_{split}.json' for split in ('train2017', 'val2017'))
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def load(root: Path, **options: Any) -> Config:
    return load_config(NAME, {'data_root': str(root), **options})


def files(cfg: Config) -> list[tuple[str, str]]:
    """Annotation file and folder of images of each data set."""
    datasets = [cfg[loader].dataset for loader in LOADERS]
    return [(dataset.ann_file, dataset.data_prefix.img) for dataset in datasets]


def test_cocos_own_layout_needs_the_folder_alone(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / 'coco')
    cfg = load(root)
    assert files(cfg) == [(TRAIN, 'train2017/'), (VAL, 'val2017/'), (VAL, 'val2017/')]
    assert cfg.model.bbox_head.num_classes == 3
    assert [cfg[loader].dataset.metainfo.classes for loader in LOADERS] == [CLASSES] * 3
    assert dataset_classes(cfg) == CLASSES
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.to_dict() == dict(type='CocoMetric', metric='bbox')
    # What is written into a work folder needs no completion and changes nothing when it is loaded.
    dumped = tmp_path / 'dumped.py'
    cfg.dump(dumped)
    again = load_config(dumped)
    assert again.to_dict() == cfg.to_dict()
    moved = load_config(dumped, {'data_root': str(write_coco_folder(tmp_path / 'moved'))})
    assert moved.val_dataloader.dataset.data_root == f'{tmp_path}/moved/'
    with pytest.raises(ValueError, match="option val_ann: nothing reads 'val_ann'"):
        load_config(dumped, {'val_ann': TRAIN})


def test_files_of_any_name(tmp_path: Path) -> None:
    for name in ('first', 'second'):
        write_coco(tmp_path, name).rename(tmp_path / f'{name}.json')
    cfg = load(
        tmp_path,
        train_ann='first.json',
        train_images='first',
        val_ann='second.json',
        val_images='second',
    )
    assert files(cfg) == [('first.json', 'first'), *[('second.json', 'second')] * 2]


def test_evaluation_on_what_is_trained_on_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco(tmp_path, 'train2017')
    with pytest.raises(FileNotFoundError, match=r'instances_val2017\.json: no such .*val_ann=FILE'):
        load(tmp_path)
    cfg = load(tmp_path, val_ann=TRAIN, val_images='train2017/')
    assert files(cfg) == [(TRAIN, 'train2017/')] * 3
    assert f'evaluated on {TRAIN}, what is trained on' in capsys.readouterr().out


def test_testing_follows_validation_named_in_the_data_set(tmp_path: Path) -> None:
    write_coco(tmp_path, 'train2017')
    write_coco(tmp_path, 'mine')
    options = {
        'val_dataloader.dataset.ann_file': 'annotations/instances_mine.json',
        'val_dataloader.dataset.data_prefix.img': 'mine',
    }
    cfg = load(tmp_path, **options)
    assert files(cfg)[1:] == [('annotations/instances_mine.json', 'mine')] * 2


@pytest.mark.parametrize(
    'edit, message',
    [
        (lambda c: c['categories'].pop(1), r"lacks \['Zelle ä'\], has none besides"),
        (
            lambda c: c['categories'].append(dict(id=1, name='gear')),
            r"lacks none, has \['gear'\] besides",
        ),
        (
            lambda c: c['categories'][0].update(name='Ring'),
            r"lacks \['ring'\], has \['Ring'\] besides",
        ),
        (
            lambda c: [c['categories'][i].update(name=CATEGORIES[1 - i][1]) for i in (0, 1)],
            r"orders them \('ring', 'Zelle ä', 'dot'\) and not \('Zelle ä', 'ring', 'dot'\)",
        ),
    ],
)
def test_other_categories_in_validation_are_refused(
    tmp_path: Path, edit: Callable, message: str
) -> None:
    def edit_all(content: dict[str, Any]) -> None:
        edit(content)
        left = {category['id'] for category in content['categories']}
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] in left]

    change(write_coco_folder(tmp_path) / VAL, edit_all)
    pattern = rf'val2017\.json: its classes are not those of .*train2017\.json; .*{message}'
    with pytest.raises(ValueError, match=pattern) as error:
        load(tmp_path)
    assert '\n' not in str(error.value)


def test_explicit_classes_stay(tmp_path: Path) -> None:
    key = 'train_dataloader.dataset.metainfo.classes'
    # Whether the files have them is the business of the data set.
    write_coco(tmp_path, 'train2017')
    cfg = load(tmp_path, **{key: ['Zelle ä', 'dot']})
    assert dataset_classes(cfg) == ('Zelle ä', 'dot')
    assert cfg.model.bbox_head.num_classes == 2
    assert dataset_classes(load(tmp_path, **{key: 'dot'})) == ('dot',)


def test_name_that_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='val_images: is 2017, but must be a path'):
        load(write_coco_folder(tmp_path), val_images=2017)


def test_missing_folder() -> None:
    with pytest.raises(FileNotFoundError, match=r'nowhere/: no such folder; .*data_root=FOLDER'):
        load(Path('nowhere'))
    with pytest.raises(FileNotFoundError, match=r'data/my_coco/: no such folder'):
        load_config(NAME)
