"""Labels in YOLO format: boxes that were laid out in pixels, the data set of the config, and faults."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hoyer_det.config import load_config
from hoyer_det.datasets.yolo_format import convert_yolo, label_file, read_labels
from mmdet.registry import DATASETS
from PIL import Image
from warm import Warm

WIDTH, HEIGHT = 80, 40
NAMES = ['nut', 'bolt', 'screw']


def write_image(path: Path, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise).save(path, exif=exif)


def line(label: int, x1: float, y1: float, x2: float, y2: float, size=(WIDTH, HEIGHT)) -> str:
    """Return the line of a box given by its corners in pixels."""
    width, height = size
    numbers = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
    return ' '.join(map(str, (label, *numbers)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Layout of Ultralytics: two splits, an image without label, one turned by EXIF, a polygon."""
    root = tmp_path / 'parts'
    for name in ('train/a', 'train/sub/b', 'train/empty', 'val/c'):
        write_image(root / 'images' / f'{name}.jpg')
    write_image(root / 'images' / 'val' / 'turned.jpg', orientation=6)
    labels = {
        'train/a': [line(2, 10, 5, 30, 25), line(0, 40, 0, 80, 40)],
        'train/sub/b': ['1 0.25 0.5 0.75 0.5 0.5 0.25', ''],  # a triangle
        'val/c': [line(0, 1, 2, 11, 12)],
        'val/turned': [line(1, 4, 8, 24, 70, (HEIGHT, WIDTH))],
    }
    for name, lines in labels.items():
        file = root / 'labels' / f'{name}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('\n'.join(lines))
    write_yaml(root, path='../datasets/parts', train='images/train', val='images/val', nc=3)
    return root


def write_yaml(root: Path, **content: object) -> None:
    content = {'names': dict(enumerate(NAMES)), **content}
    (root / 'data.yaml').write_text(yaml.safe_dump(content))


def test_config_for_coco_format_gets_the_boxes(folder, tmp_path, capsys):
    out = tmp_path / 'new'
    assert convert_yolo(folder, out) == dict(train=3, val=2)
    assert 'path ../datasets/parts does not exist' in capsys.readouterr().out
    cfg = load_config('hoyer_ssd_cocoformat', dict(data_root=str(out)))
    assert cfg.model.bbox_head.num_classes == 3
    found = {}
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.pipeline = [dict(type='LoadImageFromFile')]  # compares the sizes
        loader.dataset.filter_cfg = None
        dataset = DATASETS.build(loader.dataset)
        assert dataset.metainfo['classes'] == tuple(NAMES)
        for sample in dataset:
            boxes = [(i['bbox_label'], *np.round(i['bbox'], 2)) for i in sample['instances']]
            found[Path(sample['img_path']).relative_to(out).as_posix()] = boxes
    assert found == {
        'train2017/a.jpg': [(2, 10, 5, 30, 25), (0, 40, 0, 80, 40)],
        'train2017/empty.jpg': [],
        'train2017/sub/b.jpg': [(1, 20, 10, 60, 20)],
        'val2017/c.jpg': [(0, 1, 2, 11, 12)],
        'val2017/turned.jpg': [(1, 4, 8, 24, 70)],
    }
    assert (out / 'train2017' / 'a.jpg').is_symlink()


def test_lists_of_images_copies_and_a_test_split(folder, tmp_path, capsys):
    (folder / 'train.txt').write_text('images/train/a.jpg\n./images/val/c.jpg\n')
    splits = dict(train='train.txt', val=['images/val'], test='../images/train/sub')
    write_yaml(folder, names=NAMES, **splits)
    out = tmp_path / 'new'
    assert convert_yolo(folder / 'data.yaml', out, copy=True) == dict(train=2, val=2, test=1)
    assert not any(path.is_symlink() for path in out.rglob('*'))
    assert cv2.imread(str(out / 'train2017' / 'val' / 'c.jpg')).shape == (HEIGHT, WIDTH, 3)
    content = json.loads((out / 'annotations' / 'instances_train2017.json').read_text())
    assert [image['file_name'] for image in content['images']] == ['train/a.jpg', 'val/c.jpg']
    assert [a['category_id'] for a in content['annotations']] == [3, 1, 1]
    assert capsys.readouterr().out == ''
    write_yaml(folder, train='images/val', val='images/val', test='gone')
    assert convert_yolo(folder, tmp_path / 'other') == dict(train=2, val=2)
    assert 'test: ' in capsys.readouterr().out


def test_of_a_pose_the_box_is_taken(folder, tmp_path):
    splits = dict(train='images/train', val='images/val')
    for file in (folder / 'labels').rglob('*.txt'):
        file.write_text('1 0.5 0.5 0.25 0.5 0.1 0.1 2 0.9 0.9 0\n')
    write_yaml(folder, **splits, kpt_shape=[2, 3])
    convert_yolo(folder, tmp_path / 'new')
    content = json.loads((tmp_path / 'new/annotations/instances_train2017.json').read_text())
    assert [a['bbox'] for a in content['annotations']] == [[30, 10, 20, 20]] * 2
    write_yaml(folder, **splits, kpt_shape=[3, 2])  # 6 numbers of keypoints, too
    convert_yolo(folder, tmp_path / 'same')
    write_yaml(folder, **splits, kpt_shape=[17, 3])
    with pytest.raises(ValueError, match=r'a\.txt, line 1: has 11 numbers; .* and 51 of keypoints'):
        convert_yolo(folder, tmp_path / 'other')


def test_linked_folders_of_images_are_looked_into(folder, tmp_path):
    (folder / 'images' / 'train' / 'sub').rename(tmp_path / 'elsewhere')
    (folder / 'images' / 'train' / 'sub').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(folder / 'images' / 'train')  # ends
    assert convert_yolo(folder, tmp_path / 'new') == dict(train=3, val=2)


def test_lines_that_repeat_names_of_labelimg_and_a_byte_order_mark(folder, tmp_path, capsys):
    labels = folder / 'labels' / 'val'
    labels.joinpath('c.txt').write_bytes(b'\xef\xbb\xbf0 0.5 0.5 0.1 0.1\r\n0 0.5 0.5 0.10 0.1\r\n')
    labels.joinpath('classes.txt').write_text('nut\nbolt\nscrew\n')
    convert_yolo(folder, tmp_path / 'new')
    content = json.loads((tmp_path / 'new/annotations/instances_val2017.json').read_text())
    assert [a['bbox'] for a in content['annotations']] == [[36, 18, 8, 4], [4, 8, 20, 62]]
    printed = capsys.readouterr().out
    assert 'val: 1 lines repeat an object of their label file' in printed
    assert f'e.g. in {labels / "c.txt"}' in printed and 'belong to no image' not in printed


def test_fractions_that_rounding_took_out_of_0_to_1_are_clipped(folder, tmp_path):
    file = folder / 'labels' / 'val' / 'c.txt'
    file.write_text('0 0.5 0.5 1.0000001 1\n1 -0.0001 0.5 0.4 0.5\n')
    assert list(read_labels(file, 3)) == [(0, (0, 0, 1, 1)), (1, (-0.2, 0.25, 0.2, 0.75))]


def test_label_file_is_found_as_ultralytics_does():
    assert label_file(Path('/d/images/x/images/a.b.png')) == Path('/d/images/x/labels/a.b.txt')
    assert label_file(Path('/d/images.jpg')) == Path('/d/images.txt')


@pytest.mark.parametrize(
    'text, fault',
    [
        ('0 0.5 0.5 0.1', 'has 4 numbers; expected are class'),
        ('0 0.5 0.5 0.1 0.1 0.9', 'has 6 numbers; expected are class'),
        ('nut 0.5 0.5 0.1 0.1', "'nut 0.5 0.5 0.1 0.1' has something else than numbers"),
        ('3 0.5 0.5 0.1 0.1', 'class 3; the YAML file names 0 to 2'),
        ('0.5 0.5 0.5 0.1 0.1', 'class 0.5; the YAML file names 0 to 2'),
        ('0 40 0.5 0.1 0.1', '40 does not lie in 0 to 1'),
        ('0 0.5 0.5 1.0020001 0.1', '1.0020001 does not lie in 0 to 1'),
        ('0 0.5 0.5 -0.1 0.1', '-0.1 does not lie in 0 to 1'),
        ('0 nan 0.5 0.1 0.1', 'nan does not lie in 0 to 1'),
    ],
)
def test_fault_of_a_label_names_file_and_line(folder, tmp_path, text, fault):
    file = folder / 'labels' / 'val' / 'c.txt'
    file.write_text(f'0 0.5 0.5 0.1 0.1\n{text}\n')
    with pytest.raises(ValueError) as error:
        convert_yolo(folder, tmp_path / 'new')
    assert str(error.value).startswith(f'{file}, line 2: {fault}')
    assert '\n' not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['parts']  # nothing half-written


@pytest.mark.parametrize(
    'content, fault',
    [
        (dict(train='images/train'), "has no 'val'"),
        (dict(train='images/train', val='images/v'), r'val: .*images/v does not exist'),
        (dict(train='labels', val='images/val'), r'train: .*labels has no images'),
        (dict(train='images', val='images', names={1: 'a'}), 'keys of names must be 0 to 0'),
        (dict(train='images', val='images', names=['a', 'a']), "classes 0 and 1 are both 'a'"),
        (dict(train='images', val='images', names=['']), 'the name of class 0 is empty'),
        (dict(train='images', val='images', nc=4), 'nc is 4, but names has 3'),
        (
            dict(train='images', val='images', names=['a', False]),
            'class 1 is the truth value False',
        ),
        (dict(train='images', val='images', kpt_shape=[]), r'kpt_shape is \[\]; it must be'),
        (dict(train='images', val='images', kpt_shape=[17, -3]), r'kpt_shape is \[17, -3\]'),
        (
            dict(train='images', val='images/val/c.jpg'),
            r'yaml: val: .*c.jpg is neither a folder nor',
        ),
        (
            dict(train='images/train/empty.txt', val='images'),
            r'empty.txt, line 1: .*z.jpg does not',
        ),
    ],
)
def test_fault_of_the_yaml_file(folder, tmp_path, content, fault):
    (folder / 'images/train/empty.txt').write_text('z.jpg\n')
    write_yaml(folder, **content)
    with pytest.raises((ValueError, FileNotFoundError), match=fault):
        convert_yolo(folder, tmp_path / 'new')


def test_commands_name_the_way(folder, tmp_path, warm: Warm):
    for config in ('hoyer_ssd_cocoformat', 'hoyer_ssd_vocformat'):
        (ended,) = warm.run(['train', config, '--cfg-options', f'data_root={folder}'], tmp_path)
        assert ended.code == 1 and 'Traceback' not in ended.err
        (last,) = [text for text in ended.err.splitlines() if text.startswith('error')]
        assert f'`hoyer-det convert-labels yolo {folder} NEW`' in last
    (ended,) = warm.run(['convert-labels', 'yolo', folder, 'new'], tmp_path)
    assert ended.code == 0 and 'train: 3 images\nval: 2 images\nnew: train it' in ended.out
    (ended,) = warm.run(['convert-labels', 'yolo', folder, 'new'], tmp_path)
    assert (ended.code, ended.err) == (1, 'error: new: exists already; name a new folder\n')
    (folder / 'data.yaml').unlink()
    (ended,) = warm.run(['convert-labels', 'yolo', folder, 'other'], tmp_path)
    assert ended.code == 1 and ended.err.startswith(f'error: {folder}: has no data.yaml')


@pytest.mark.parametrize('name', ['data.yaml', 'parts.yml'])
def test_folder_taken_for_another_format_gets_the_hint(folder, name):
    (folder / 'data.yaml').rename(folder / name)
    for config in ('hoyer_ssd_vocformat', 'hoyer_ssd_cocoformat'):
        with pytest.raises(FileNotFoundError, match=f'convert-labels yolo {folder} NEW'):
            load_config(config, dict(data_root=str(folder)))


def test_image_whose_name_is_not_utf8(folder, tmp_path):
    name = os.fsdecode(b'\xff.jpg')
    write_image(folder / 'images' / 'train' / name)
    convert_yolo(folder, tmp_path / 'new')
    file = tmp_path / 'new' / 'annotations' / 'instances_train2017.json'
    images = json.loads(file.read_text(encoding='utf-8'))['images']
    assert name in [image['file_name'] for image in images]
