"""Annotations in COCO format: classes, boxes, and the faults that real files have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_folder import CLASSES, change, write_coco, write_coco_folder
from hoyer_det.datasets import CocoFormatDataset
from hoyer_det.datasets.coco_format import read_annotations
from mmdet.evaluation import CocoMetric

pytestmark = pytest.mark.usefixtures('log')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_coco(tmp_path, 'train2017')


def dataset(file: Path, classes: tuple[str, ...] = CLASSES, **kwargs: Any) -> CocoFormatDataset:
    arguments = dict(
        data_root=str(file.parents[1]),
        ann_file=f'annotations/{file.name}',
        data_prefix=dict(img='train2017'),
        metainfo=dict(classes=classes),
        pipeline=[],
    )
    return CocoFormatDataset(**{**arguments, **kwargs})


def test_categories_are_in_the_order_of_their_ids(file: Path) -> None:
    def names() -> list[str]:
        return [category['name'] for category in read_annotations(file)[0]['categories']]

    assert names() == ['Zelle ä', 'ring', 'dot']
    file.write_bytes(b'\xef\xbb\xbf' + file.read_bytes())  # a byte order mark
    assert names() == ['Zelle ä', 'ring', 'dot']


@pytest.mark.parametrize(
    'content, message',
    [
        ('{"images": [', 'not a valid JSON file'),
        (b'\xff\xfe', 'not a valid JSON file'),
        ('[]', "has no list of 'images'"),
        ('{"images": 3}', "has no list of 'images'"),
        ('{"images": [3]}', r"images\[0\] lacks 'id'"),
        ('{"images": [{"id": 1}]}', r"images\[0\] lacks 'file_name'; each needs id, file_name"),
    ],
)
def test_what_is_no_annotation_file_is_named(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = tmp_path / 'notes.json'
    with pytest.raises(FileNotFoundError, match=r'notes\.json: no such annotation file.*data_root'):
        read_annotations(path)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf'notes\.json: {message}') as error:
        read_annotations(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'edit, message',
    [
        (lambda c: c.pop('categories'), "has no list of 'categories'"),
        (lambda c: c.update(annotations=[]), "has an empty list of 'annotations'"),
        (lambda c: c['categories'][1].update(name='ring'), "2 categories have name 'ring'"),
        (lambda c: c['categories'][1].update(id=7), '2 categories have id 7'),
        (lambda c: c['images'][1].update(id=5), '2 images have id 5'),
        (lambda c: c['annotations'][1].update(id=1), '2 annotations have id 1'),
        (lambda c: c['categories'][2].pop('name'), r"categories\[2\] lacks 'name'"),
        (
            lambda c: c['annotations'][0].update(id=[1]),
            r'has id \[1\]; it must be a number or a word',
        ),
        (lambda c: c['images'][0].update(file_name=12), 'has file_name 12; it must be a text'),
        (lambda c: c['annotations'][0].update(area='9'), "has area '9'; it must be a number"),
        (
            lambda c: c['annotations'][0].update(bbox=[1, 2, '3', 4]),
            r"bbox \[1, 2, '3', 4\]; it must",
        ),
        (lambda c: c['annotations'][0].update(bbox=[1, 2, 3]), r'bbox \[1, 2, 3\]; it must be'),
        (lambda c: c['annotations'][2].update(category_id=99), 'annotation 3 has category_id 99'),
        (lambda c: c['annotations'][2].update(image_id=6), 'annotation 3 has image_id 6'),
    ],
)
def test_faults_in_the_annotations_are_named(file: Path, edit: Callable, message: str) -> None:
    change(file, edit)
    with pytest.raises(ValueError, match=rf'instances_train2017\.json: .*{message}') as error:
        read_annotations(file)
    assert '\n' not in str(error.value)


def test_boxes_labels_and_files(file: Path) -> None:
    data = dataset(file, test_mode=True)
    assert [data.get_data_info(i)['img_id'] for i in range(5)] == [5, 15, 25, 35, 45]
    first, second = data.get_data_info(0), data.get_data_info(1)
    assert Path(first['img_path']) == file.parents[1] / 'train2017' / 'left' / 'a.jpg'
    assert (first['width'], first['height']) == (96, 80)
    assert [box['bbox'] for box in first['instances']] == [[10, 20, 60, 70], [30, 5, 90, 50]]
    assert [box['bbox_label'] for box in first['instances']] == [0, 1]
    assert [(b['bbox_label'], b['ignore_flag']) for b in second['instances']] == [(2, 0), (0, 1)]
    assert data.metainfo == dict(classes=CLASSES)  # no colours that belong to COCO's classes


def test_images_without_an_object_are_not_trained_on(file: Path, log: list[str]) -> None:
    data = dataset(file, filter_cfg=dict(filter_empty_gt=True))
    assert [data.get_data_info(i)['img_id'] for i in range(len(data))] == [5, 15, 45]
    assert len(data.get_data_info(2)['instances']) == 1
    (line,) = [message for message in log if 'left out' in message]
    assert 'instances_train2017.json: 1 boxes left out' in line
    change(file, lambda content: content.update(annotations=content['annotations'][4:5]))
    with pytest.raises(ValueError, match=r'train2017\.json: no image left of 5 listed'):
        dataset(file, filter_cfg=dict(filter_empty_gt=True))


def test_boxes_that_nothing_can_find_are_left_out_and_logged(file: Path, log: list[str]) -> None:
    def edit(content: dict[str, Any]) -> None:
        first, second, third, *_ = content['annotations']
        first['bbox'] = [float('nan'), 0, 9, 9]
        second['bbox'] = [96, 0, 9, 9]
        third['bbox'] = [20, 20, -9, 9]

    change(file, edit)
    data = dataset(file, test_mode=True)
    assert [len(info['instances']) for info in data] == [0, 1, 0, 1, 1]
    (line,) = [message for message in log if 'left out' in message]
    counts = '1 inverted, 1 less than a pixel wide or high, 1 not finite, 1 outside the image'
    assert f'4 boxes left out ({counts}), in c.png, left/a.jpg, right/b.jpg' in line


def test_crowds_in_words_and_left_out(file: Path, log: list[str]) -> None:
    def edit(content: dict[str, Any]) -> None:
        for annotation in content['annotations']:
            annotation['iscrowd'] = str(annotation['iscrowd'])
        del content['annotations'][0]['iscrowd']

    flags = [[b['ignore_flag'] for b in info['instances']] for info in dataset(file)]
    change(file, edit)
    assert [[b['ignore_flag'] for b in info['instances']] for info in dataset(file)] == flags
    (line,) = [message for message in log if 'iscrowd' in message]
    assert '6 iscrowd are text' in line
    change(file, lambda content: content['annotations'][0].update(iscrowd='no'))
    with pytest.raises(ValueError, match=r"annotation 1 has iscrowd 'no'; it must be 0 or 1"):
        dataset(file)


@pytest.mark.parametrize('area', [None, 'missing'])
def test_area_that_the_file_leaves_open_is_that_of_the_box(
    file: Path, log: list[str], area: str | None
) -> None:
    def edit(content: dict[str, Any]) -> None:
        for annotation in content['annotations'][:2]:
            annotation.pop('area')
            if area is None:
                annotation['area'] = None

    boxes = [info['instances'] for info in dataset(file)]
    change(file, edit)
    assert [info['instances'] for info in dataset(file)] == boxes
    assert [a['area'] for a in read_annotations(file)[0]['annotations'][:2]] == [2500, 2700]
    told = '2 boxes have no area, taken as width * height'
    assert len([message for message in log if message.endswith(told)]) == 1


def test_corners_in_the_place_of_sizes_are_refused(file: Path, log: list[str]) -> None:
    def to_corners(content: dict[str, Any]) -> None:
        for annotation in content['annotations']:
            x, y, w, h = annotation['bbox']
            annotation['bbox'] = [x, y, x + w, y + h]

    sizes = file.read_text(encoding='utf-8')
    change(file, to_corners)
    # Of the seven, those from (30, 5) to (90, 50), (40, 10) to (90, 70), (20.5, 20.5) to (60.5, 60.5) and
    # (50, 50) to (50.5, 70) leave 96 x 80 pixels when their ends are taken for sizes.
    with pytest.raises(
        ValueError,
        match=r'is \[x1, y1, x2, y2\], as it seems: 4 of 7 boxes reach beyond their image, 0 when read so',
    ):
        dataset(file)
    file.write_text(sizes, encoding='utf-8')
    change(file, lambda content: content['annotations'][0].update(bbox=[10, 20, 90, 50]))
    assert len(dataset(file)) == 5  # a box that leaves its image by 4 px; the others are no corners
    assert [m for m in log if m.endswith('1 boxes reach more than a pixel beyond their image')]


def test_one_file_under_two_ids_is_logged(file: Path, log: list[str]) -> None:
    change(file, lambda content: content['images'][1].update(file_name='left/a.jpg'))
    dataset(file)
    (line,) = [message for message in log if 'same file' in message]
    assert '2 images are the same file left/a.jpg' in line


def test_empty_image_and_monstrous_name(file: Path) -> None:
    (file.parents[1] / 'train2017' / 'empty.jpg').write_bytes(b'')
    with pytest.raises(ValueError, match=r'empty\.jpg: is an empty file'):
        dataset(file)
    change(file, lambda content: content['categories'][0].update(name='x' * 10**6))
    with pytest.raises(ValueError, match='category 7 has 1000000 characters') as error:
        read_annotations(file)
    assert len(str(error.value)) < 400


def test_some_of_the_classes(file: Path, log: list[str]) -> None:
    data = dataset(file, ('Zelle ä', 'dot'), filter_cfg=dict(filter_empty_gt=True))
    labels = {info['img_id']: [box['bbox_label'] for box in info['instances']] for info in data}
    assert labels == {5: [0], 15: [1, 0]}
    assert [message.split(': ')[1][:7] for message in log if 'left out' in message] == ['1 boxes']


@pytest.mark.parametrize(
    'classes, problem',
    [
        (
            ('ring', 'Zelle ä', 'dot'),
            r'give them in the order of their ids: classes=\[Zelle ä,ring,dot\]',
        ),
        (('Zelle ä', 'gear'), r"there is no category \['gear'\]"),
    ],
)
def test_classes_that_do_not_fit_the_file(
    file: Path, classes: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(ValueError, match=rf'train2017\.json: its categories are .*; {problem}'):
        dataset(file, classes)


def test_what_is_missing_is_named(file: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'val2017\.json: no such annotation file'):
        dataset(file, ann_file=None, test_mode=True)
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        dataset(file, data_root='nowhere')
    with pytest.raises(
        FileNotFoundError, match=r'else/left/a\.jpg: no such image.*train2017\.json'
    ):
        dataset(file, data_prefix=dict(img='else'))


def test_it_finds_its_files_and_classes_itself(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path)
    change(
        root / 'annotations' / 'instances_val2017.json', lambda content: content['images'].reverse()
    )
    for test_mode, split in ((False, 'train2017'), (True, 'val2017')):
        data = CocoFormatDataset(data_root=str(root), pipeline=[], test_mode=test_mode)
        assert data.metainfo['classes'] == CLASSES
        assert all(f'/{split}/' in info['img_path'] for info in data)


@pytest.mark.parametrize('crowds', [True, False])
@pytest.mark.parametrize('reads_file', [True, False])
@pytest.mark.parametrize('classes', [CLASSES, ('ring', 'dot')])
def test_the_true_boxes_reach_full_average_precision(
    file: Path, classes: tuple[str, ...], reads_file: bool, crowds: bool
) -> None:
    # Full only if data set and metric give the same number to the same class.
    if not crowds:
        for key in ('iscrowd', 'area'):
            change(file, lambda content, key=key: [a.pop(key) for a in content['annotations']])
        flags = {box['ignore_flag'] for info in dataset(file) for box in info['instances']}
        assert flags == {0}
    if reads_file:
        change(file, lambda content: content['annotations'].pop())  # too narrow to be learnt
    data = dataset(file, classes, test_mode=True)
    of_file = dict(ann_file=str(file), sort_categories=True) if reads_file else {}
    metric = CocoMetric(classwise=True, **of_file)
    metric.dataset_meta = data.metainfo
    for info in data:
        boxes = [box for box in info['instances'] if not box['ignore_flag']]
        prediction = dict(
            bboxes=torch.tensor(np.reshape([box['bbox'] for box in boxes], (-1, 4))),
            labels=torch.tensor([box['bbox_label'] for box in boxes], dtype=torch.long),
            scores=torch.ones(len(boxes)),
        )
        sample = {**info, 'pred_instances': prediction, 'ori_shape': (80, 96)}
        metric.process({}, [sample])
    result = metric.evaluate(len(data))
    assert result['coco/bbox_mAP'] == 1.0
    assert all(result[f'coco/{name}_precision'] == 1.0 for name in classes)
