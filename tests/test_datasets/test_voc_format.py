"""Folders in Pascal VOC layout: classes, splits, boxes, and the faults that real folders have."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, voc_object, write_split, write_voc_image
from hoyer_det.config import load_config
from hoyer_det.datasets import (
    SHAPE_CLASSES,
    ShapesDataset,
    VOCFormatDataset,
    generate_shapes,
    read_classes,
    read_splits,
    shapes_dataset,
)
from mmdet.registry import DATASETS, MODELS
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from PIL import Image

BCCD = Path(__file__).parents[2].parent / 'shared' / 'data' / 'bccd'


pytestmark = pytest.mark.usefixtures('log')


def dataset(root: Path, split: str = 'trainval', **kwargs) -> VOCFormatDataset:
    return VOCFormatDataset(
        data_root=str(root),
        ann_file=f'ImageSets/Main/{split}.txt',
        data_prefix=dict(sub_data_root=''),
        pipeline=[],
        **kwargs,
    )


# ------------------------------------------------------------------------------------------------
# Classes and splits
# ------------------------------------------------------------------------------------------------


def test_classes_are_those_of_all_annotations_sorted(tmp_path: Path) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut'), voc_object('Bolt')])
    write_voc_image(tmp_path, 'b', [])
    write_voc_image(tmp_path, 'c', [voc_object(' nut\n'), voc_object('gear wheel')])
    assert read_classes(tmp_path) == ('Bolt', 'gear wheel', 'nut')


def test_classes_of_annotations_in_folders_below(tmp_path: Path) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut')])
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'Annotations' / 'a.xml').rename(tmp_path / 'elsewhere' / 'a.xml')
    (tmp_path / 'Annotations' / 'sub').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'Annotations')  # ends
    assert read_classes(tmp_path) == ('nut',)


def test_read_classes_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'Annotations: no \*\.xml'):
        read_classes(tmp_path)
    write_voc_image(tmp_path, 'a', [])
    with pytest.raises(ValueError, match='1 files, none with a named object'):
        read_classes(tmp_path)
    (tmp_path / 'Annotations' / 'b.xml').write_text('<annotation><object>')
    with pytest.raises(ValueError, match=r'b\.xml: not a valid XML file'):
        read_classes(tmp_path)
    for encoding in ('gb2312', 'klingon'):
        text = f'<?xml version="1.0" encoding="{encoding}"?><annotation/>'
        (tmp_path / 'Annotations' / 'b.xml').write_text(text)
        with pytest.raises(ValueError, match=r'b\.xml: not a valid XML file \(.*encoding'):
            read_classes(tmp_path)


@pytest.mark.parametrize(
    'lists, expected',
    [
        (('train', 'val', 'trainval', 'test'), ('trainval', 'test')),
        (('train', 'val', 'test'), ('train', 'test')),
        (('train', 'val', 'trainval'), ('train', 'val')),  # trainval would contain val
    ],
)
def test_splits(tmp_path: Path, lists: tuple[str, ...], expected: tuple[str, str]) -> None:
    for name in lists:
        write_split(tmp_path, name, [])
    assert read_splits(tmp_path) == expected


@pytest.mark.parametrize('lists', [(), ('train',), ('test',), ('trainval', 'val')])
def test_no_pair_of_splits(tmp_path: Path, lists: tuple[str, ...]) -> None:
    for name in lists:
        write_split(tmp_path, name, [])
    with pytest.raises(FileNotFoundError, match=r'ImageSets/Main: needs'):
        read_splits(tmp_path)


# ------------------------------------------------------------------------------------------------
# Annotations
# ------------------------------------------------------------------------------------------------


def test_boxes_labels_and_sizes(tmp_path: Path) -> None:
    objects = [voc_object('nut', 11, 21, 60, 70), voc_object('bolt', '1.0', '1.9', 96, 80, True)]
    write_voc_image(tmp_path, 'a', objects)
    write_split(tmp_path, 'trainval', ['a'])
    data = dataset(tmp_path)
    assert data.metainfo['classes'] == ('bolt', 'nut')
    info = data.get_data_info(0)
    assert (info['width'], info['height'], info['img_id']) == (96, 80, 'a')
    assert [item['bbox'] for item in info['instances']] == [[10, 20, 59, 69], [0, 0, 95, 79]]
    assert [item['bbox_label'] for item in info['instances']] == [1, 0]
    assert [item['ignore_flag'] for item in info['instances']] == [0, 1]


def test_space_around_a_name_does_not_matter(tmp_path: Path) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('\n  nut '), voc_object('nut', 1, 1, 9, 9)])
    write_split(tmp_path, 'trainval', ['a'])
    instances = dataset(tmp_path).get_data_info(0)['instances']
    assert [item['bbox_label'] for item in instances] == [0, 0]


@pytest.mark.parametrize(
    'box, fault',
    [
        *[(box, 'zero area') for box in [(11, 21, 11, 70), (11, 21, 60, 21), (11, 21, 11, 21)]],
        *[(box, 'inverted') for box in [(60, 21, 11, 70), (1, 70, 9, 20)]],
        *[(box, 'not finite') for box in [('nan', 1, 9, 9), (1, 1, 'inf', 9), (1, '-1e400', 9, 9)]],
        *[(box, 'outside the image') for box in [(97, 1, 99, 9), (1, 81, 9, 85), (-9, 1, 1, 9)]],
    ],
)
@pytest.mark.parametrize('test_mode', [False, True])
def test_boxes_that_nothing_can_find_are_left_out_and_logged(
    tmp_path: Path, log: list[str], box: tuple[object, ...], fault: str, test_mode: bool
) -> None:
    write_voc_image(tmp_path, 'good', [voc_object('nut', 1, 1, 2, 2)])
    write_voc_image(tmp_path, 'mixed', [voc_object('nut', *box), voc_object('nut')])
    write_voc_image(tmp_path, 'bad', [voc_object('nut', *box)])
    write_split(tmp_path, 'trainval', ['good', 'mixed', 'bad'])
    data = dataset(tmp_path, test_mode=test_mode, filter_cfg=dict(filter_empty_gt=True))
    boxes = {info['img_id']: [i['bbox'] for i in info['instances']] for info in data}
    expected = {'good': [[0, 0, 1, 1]], 'mixed': [[10, 20, 59, 69]], 'bad': []}
    if not test_mode:
        del expected['bad']  # nothing is left to learn from it
    assert boxes == expected
    (line,) = [message for message in log if 'left out' in message]
    assert line.endswith(f'trainval.txt: 2 boxes left out (2 {fault}), in bad, mixed')


def test_nothing_is_logged_without_fault(voc_folder: Path, log: list[str]) -> None:
    assert len(dataset(voc_folder)) == 4
    assert not log


def test_box_that_reaches_beyond_the_border_stays(tmp_path: Path, log: list[str]) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut', 0, 1, 120, 80)])
    write_split(tmp_path, 'trainval', ['a'])
    assert [i['bbox'] for i in dataset(tmp_path).get_data_info(0)['instances']] == [
        [-1, 0, 119, 79]
    ]
    assert not log


def test_it_chooses_its_split_and_classes_itself(voc_folder: Path) -> None:
    for test_mode, number in ((False, 4), (True, 2)):
        data = VOCFormatDataset(data_root=str(voc_folder), pipeline=[], test_mode=test_mode)
        assert (len(data), data.metainfo['classes']) == (number, ('cell', 'dot', 'ring'))


def test_an_image_listed_twice_is_taken_once(voc_folder: Path, log: list[str]) -> None:
    write_split(voc_folder, 'trainval', ['image0', 'image1', 'image0'])
    assert [info['img_id'] for info in dataset(voc_folder)] == ['image0', 'image1']
    (line,) = log
    assert 'trainval.txt: 1 lines repeat an image' in line


def test_an_image_in_a_folder_below_is_not_its_namesake(tmp_path: Path) -> None:
    for name in ('JPEGImages', 'Annotations'):
        (tmp_path / name / 'sub').mkdir(parents=True)
    write_voc_image(tmp_path, 'sub/a.b', [voc_object('nut')])
    write_voc_image(tmp_path, 'a.b', [])
    write_split(tmp_path, 'trainval', ['sub/a.b'])
    info = dataset(tmp_path).get_data_info(0)
    assert Path(info['img_path']) == tmp_path / 'JPEGImages' / 'sub' / 'a.b.jpg'
    assert len(info['instances']) == 1


def test_space_and_byte_order_mark_in_a_list_do_not_matter(voc_folder: Path) -> None:
    file = voc_folder / 'ImageSets' / 'Main' / 'trainval.txt'
    file.write_bytes('\ufeffimage0 \r\n\timage1\r\n'.encode())
    assert [info['img_id'] for info in dataset(voc_folder)] == ['image0', 'image1']


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut')])
    write_split(tmp_path, 'trainval', ['a'])
    images = tmp_path / 'JPEGImages'
    (images / 'a.png').symlink_to(images / 'a.jpg')
    assert len(dataset(tmp_path)) == 1  # one file
    write_voc_image(tmp_path, 'a', [voc_object('nut')], suffix='.bmp')
    with pytest.raises(ValueError, match=r'a\.jpg: there is a\.bmp, too, .*trainval\.txt lists a '):
        dataset(tmp_path)


def test_annotation_with_a_namespace(tmp_path: Path) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut')])
    file = tmp_path / 'Annotations' / 'a.xml'
    file.write_text(file.read_text().replace('<annotation>', '<annotation xmlns="http://a.b/c">'))
    write_split(tmp_path, 'trainval', ['a'])
    info = dataset(tmp_path).get_data_info(0)
    assert [item['bbox'] for item in info['instances']] == [[10, 20, 59, 69]]
    assert (info['width'], info['height']) == (96, 80)


def test_empty_image_and_monstrous_name(tmp_path: Path) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut')])
    write_split(tmp_path, 'trainval', ['a'])
    (tmp_path / 'JPEGImages' / 'a.jpg').write_bytes(b'')
    with pytest.raises(ValueError, match=r'a\.jpg: is an empty file'):
        dataset(tmp_path)
    write_voc_image(tmp_path, 'a', [voc_object('x' * 10**6)])
    for classes in ({}, dict(metainfo=dict(classes=('nut',)))):
        with pytest.raises(ValueError, match=r'a\.xml: ') as error:
            dataset(tmp_path, **classes)
        assert len(str(error.value)) < 600


LOAD = [dict(type='LoadImageFromFile')]


def test_image_of_another_size_than_declared(tmp_path: Path) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut')], size=(192, 160))
    write_split(tmp_path, 'trainval', ['a'])
    data = VOCFormatDataset(
        data_root=str(tmp_path), pipeline=LOAD, ann_file='ImageSets/Main/trainval.txt'
    )
    with pytest.raises(ValueError, match=r'a\.jpg: .* 96 x 80 pixels, .* says 192 x 160.*resized'):
        data[0]


@pytest.mark.parametrize('declared, good', [((80, 96), True), ((96, 80), False)])
def test_image_turned_by_exif_is_taken_as_seen(
    tmp_path: Path, declared: tuple[int, int], good: bool
) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut')], size=declared)
    write_split(tmp_path, 'trainval', ['a'])
    file = tmp_path / 'JPEGImages' / 'a.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    with Image.open(file) as image:
        image.save(file, exif=exif)
    data = VOCFormatDataset(
        data_root=str(tmp_path), pipeline=LOAD, ann_file='ImageSets/Main/trainval.txt'
    )
    if good:
        assert data[0]['img'].shape == (96, 80, 3)
        return
    with pytest.raises(ValueError, match=r'a\.jpg: .*EXIF orientation turns it'):
        data[0]


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.jpeg', '.PNG', '.bmp'])
def test_kinds_of_images(tmp_path: Path, suffix: str) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut')], suffix=suffix)
    write_split(tmp_path, 'trainval', ['a'])
    assert dataset(tmp_path).get_data_info(0)['img_path'].endswith(f'JPEGImages/a{suffix}')


def test_image_without_size_in_its_annotation_is_measured(tmp_path: Path) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut')], size=None)
    write_split(tmp_path, 'trainval', ['a'])
    info = dataset(tmp_path).get_data_info(0)
    assert (info['width'], info['height']) == (96, 80)


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut')])
    with pytest.raises(FileNotFoundError, match=r'trainval\.txt: this list'):
        dataset(tmp_path)
    write_split(tmp_path, 'trainval', ['a', 'b'])
    with pytest.raises(FileNotFoundError, match=r'JPEGImages/b: no such image.*trainval\.txt'):
        dataset(tmp_path)
    write_voc_image(tmp_path, 'b', [])
    (tmp_path / 'Annotations' / 'b.xml').unlink()
    with pytest.raises(FileNotFoundError, match=r'Annotations/b\.xml: missing'):
        dataset(tmp_path)
    (tmp_path / 'ImageSets' / 'Main' / 'trainval.txt').write_text('a\n\n')
    with pytest.raises(ValueError, match=r'trainval\.txt: has an empty line'):
        dataset(tmp_path)


@pytest.mark.parametrize(
    'xml',
    [
        '<annotation><object>',
        'no xml at all',
        '<annotation><object><name>nut</name></object></annotation>',
        '<annotation><size/><object><name>nut</name></object></annotation>',
        f'<annotation>{voc_object("nut", "left")}</annotation>',
        f'<annotation>{voc_object("nut", "")}</annotation>',
        '<annotation><object><name>nut</name><difficult/></object></annotation>',
        '<?xml version="1.0" encoding="gb2312"?><annotation/>',
        '<?xml version="1.0" encoding="klingon"?><annotation/>',
    ],
)
def test_unreadable_annotation_is_named(tmp_path: Path, xml: str) -> None:
    write_voc_image(tmp_path, 'a', [])
    (tmp_path / 'Annotations' / 'a.xml').write_text(xml)
    write_split(tmp_path, 'trainval', ['a'])
    with pytest.raises(ValueError, match=r'Annotations/a\.xml'):
        dataset(tmp_path, metainfo=dict(classes=('nut',)))


@pytest.mark.parametrize('size', [(0, 80), (96, 0), (0, 0)])
def test_size_of_zero_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut')], size=size)
    write_split(tmp_path, 'trainval', ['a'])
    with pytest.raises(ValueError, match=rf'a\.xml: says the image is {size[0]} x {size[1]}'):
        dataset(tmp_path)


def test_class_that_is_not_among_those_given_is_refused(voc_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"image0\.xml: .*class 'ring' is not among"):
        dataset(voc_folder, metainfo=dict(classes=('cell', 'dot')))
    write_voc_image(voc_folder, 'image0', ['<object><name/></object>'])
    with pytest.raises(ValueError, match=r"image0\.xml: .*class ''"):
        dataset(voc_folder)


# ------------------------------------------------------------------------------------------------
# Real data, and the synthetic shapes
# ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not BCCD.is_dir(), reason=f'{BCCD} is not there')
def test_blood_cells(log: list[str]) -> None:
    assert read_classes(BCCD) == ('Platelets', 'RBC', 'WBC')
    assert read_splits(BCCD) == ('trainval', 'test')
    cfg = load_config(REPOSITORY / 'configs/hoyer_ssd_vocformat.py', {'data_root': str(BCCD)})
    init_default_scope('mmdet')
    data = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(data.load_data_list()) == 292
    line = [message for message in log if 'zero area' in message][0]
    assert line.split(': ')[1].startswith('2 boxes')
    affected = line.rsplit(' in ', 1)[1].split(', ')
    samples = [
        data[index] for index in range(len(data)) if data.get_data_info(index)['img_id'] in affected
    ]
    assert len(samples) == 2
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    batch = model.data_preprocessor(pseudo_collate(samples), training=True)
    losses = model(**batch, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert math.isfinite(total.item())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


def test_shapes_are_made_when_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A small set: num_train, num_test, image_size, seed.
    monkeypatch.setattr(shapes_dataset.generate_shapes, '__defaults__', (4, 2, 64, 0))
    root = tmp_path / 'data' / 'shapes'
    arguments = dict(
        data_root=str(root), data_prefix=dict(sub_data_root=''), pipeline=[], test_mode=True
    )
    train = ShapesDataset(ann_file='ImageSets/Main/trainval.txt', **arguments)
    assert train.metainfo['classes'] == SHAPE_CLASSES
    assert len(train) == 4
    assert all(info['instances'] for info in train)
    made = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    test = ShapesDataset(ann_file='ImageSets/Main/test.txt', **arguments)
    assert len(test) == 2
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == made
    areas = [
        np.prod(np.subtract(item['bbox'][2:], item['bbox'][:2]))
        for info in test
        for item in info['instances']
    ]
    assert min(areas) > 0


def test_shapes_of_other_arguments_are_taken_as_they_are(tmp_path: Path) -> None:
    root = generate_shapes(tmp_path / 'shapes', num_train=3, num_test=5, image_size=64, seed=9)
    arguments = dict(data_root=str(root), data_prefix=dict(sub_data_root=''), pipeline=[])
    assert len(ShapesDataset(test_mode=True, **arguments)) == 5
    min(root.glob('JPEGImages/*.jpg')).unlink()
    with pytest.raises(ValueError, match='has 7 of 8 files'):
        ShapesDataset(test_mode=True, **arguments)
