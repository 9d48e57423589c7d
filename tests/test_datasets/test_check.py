"""Faults of annotations and images: each is found, named, and gone from the clean copy."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hoyer_det_cli
import pytest
from coco_folder import change, write_coco_folder
from conftest import CONFIGS, REPOSITORY, voc_object, write_split, write_voc_image
from hoyer_det.config import load_config
from hoyer_det.datasets import read_classes
from hoyer_det.datasets.check import Report, check_datasets
from hoyer_det.datasets.clean import write_clean
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image

VOC, COCO = CONFIGS / 'hoyer_ssd_vocformat.py', CONFIGS / 'hoyer_ssd_cocoformat.py'
DATA = REPOSITORY.parent / 'shared' / 'data'


def check(config: Path, root: Path, workers: int = 1, **kwargs: Any) -> Report:
    cfg = load_config(config, {'data_root': str(root)}, complete=False)
    return check_datasets(cfg, workers=workers, **kwargs)


def found(report: Report) -> list[tuple[str, str, int | None]]:
    return sorted((p.image, p.kind, p.item) for p in report.problems)


def turn(file: Path) -> None:
    """Give a JPEG the EXIF orientation of a quarter turn."""
    exif = Image.Exif()
    exif[0x0112] = 8
    with Image.open(file) as image:
        image.save(file, exif=exif)


def edit_voc(root: Path) -> dict[str, tuple[str, int | None]]:
    """Spoil ten of twelve images in VOC layout; return what must be found in them."""
    for index in range(12):
        write_voc_image(root, f'image{index}', [voc_object('cell'), voc_object('dot')], seed=index)

    def image(name: str) -> Path:
        return root / 'JPEGImages' / f'{name}.jpg'

    def annotation(name: str) -> Path:
        return root / 'Annotations' / f'{name}.xml'

    objects = [voc_object('cell'), voc_object('dot', 'nan'), voc_object('cell', 97, 1, 99, 9)]
    write_voc_image(root, 'image0', objects)
    write_voc_image(root, 'image1', [voc_object('cell'), voc_object('x' * 10**6)])
    write_voc_image(root, 'image2', [voc_object('cell')], size=(48, 40))
    image('image3').write_bytes(b'')
    image('image4').write_bytes(image('image4').read_bytes()[:1000])
    turn(image('image5'))
    annotation('image6').write_text('<annotation><object>')
    annotation('image7').unlink()
    image('image8').unlink()
    image('image9').write_bytes(image('image10').read_bytes())
    write_split(root, 'trainval', [f'image{i}' for i in range(10)] + ['image0', ''])
    write_split(root, 'test', ['image9', 'image10', 'image11'])
    return {
        '': [('empty line', None)],
        'image0': [('listed twice', None), ('not finite', 1), ('outside the image', 2)],
        'image1': [('name', 1)],
        'image2': [('other size', None)],
        'image3': [('image empty', None)],
        'image4': [('image unreadable', None)],
        'image5': [('other size', None)],
        'image6': [('annotation unreadable', None)],
        'image7': [('annotation missing', None)],
        'image8': [('image missing', None)],
        'image9': [('trained and evaluated', None)],
    }


@pytest.mark.parametrize('workers', [1, 2])
def test_faults_of_a_voc_folder(tmp_path: Path, workers: int) -> None:
    expected = edit_voc(tmp_path / 'voc')
    report = check(VOC, tmp_path / 'voc', workers)
    assert found(report) == [
        (name, *fault) for name, faults in expected.items() for fault in faults
    ]
    assert [len(source.names) for source in report.sources] == [10, 3]
    assert all(len(p.detail) < 400 and '\n' not in p.detail for p in report.problems)
    (turned,) = [p.detail for p in report.problems if p.image == 'image5']
    assert 'EXIF orientation turns it' in turned
    clean = write_clean(report, tmp_path / 'clean')
    assert check(VOC, clean).problems == []
    cfg = load_config(VOC, {'data_root': str(clean)})
    assert cfg.train_dataloader.dataset.metainfo.classes == ('cell', 'dot')
    data = DATASETS.build(cfg.train_dataloader.dataset)
    infos = [data.get_data_info(index) for index in range(len(data))]
    assert {i['img_id']: len(i['instances']) for i in infos} == {'image0': 1, 'image1': 1}
    assert data[1]['inputs'].shape == (3, 160, 160)


def test_the_same_picture_in_training_and_evaluation(tmp_path: Path, voc_folder: Path) -> None:
    pictures = voc_folder / 'JPEGImages'
    (pictures / 'image1.jpg').write_bytes((pictures / 'image4.jpg').read_bytes())
    (problem,) = check(VOC, voc_folder).problems
    assert (problem.image, problem.kind) == ('image1', 'trained and evaluated')
    assert 'the same picture as image4' in problem.detail
    assert check(VOC, voc_folder, decode=False).problems == []


def test_copies_of_an_evaluated_picture_all_leave_the_training(
    tmp_path: Path, voc_folder: Path
) -> None:
    pictures = voc_folder / 'JPEGImages'
    for name in ('image1', 'image2'):
        (pictures / f'{name}.jpg').write_bytes((pictures / 'image4.jpg').read_bytes())
    report = check(VOC, voc_folder)
    assert found(report) == [(f'image{i}', 'trained and evaluated', None) for i in (1, 2)]
    assert check(VOC, write_clean(report, tmp_path / 'clean')).problems == []


def test_faults_of_coco_files(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / 'coco')
    train = root / 'annotations' / 'instances_train2017.json'

    def edit(content: dict[str, Any]) -> None:
        first, second, *_ = content['annotations']
        first['bbox'] = [float('inf'), 0, 9, 9]
        second['iscrowd'] = '0'
        content['images'][0]['width'] = 50
        content['images'][4]['file_name'] = 'right/b.jpg'

    change(train, edit)
    (root / 'train2017' / 'empty.jpg').write_bytes(b'')
    report = check(COCO, root)
    # c.png of the other split has a box of half a pixel, as has right/b.jpg now.
    assert found(report) == sorted(
        [
            ('', 'iscrowd', None),
            ('c.png', 'less than a pixel wide or high', 7),
            ('empty.jpg', 'image empty', None),
            ('left/a.jpg', 'not finite', 1),
            ('left/a.jpg', 'other size', None),
            ('right/b.jpg', 'less than a pixel wide or high', 7),
            ('right/b.jpg', 'one file, several ids', None),
        ],
        key=lambda item: (item[0], item[1]),
    )
    clean = write_clean(report, tmp_path / 'clean')
    assert check(COCO, clean).problems == []
    data = DATASETS.build(load_config(COCO, {'data_root': str(clean)}).train_dataloader.dataset)
    infos = [data.get_data_info(index) for index in range(len(data))]
    assert {Path(i['img_path']).name: len(i['instances']) for i in infos} == {'b.jpg': 3}
    same = dict(val_ann='annotations/instances_train2017.json', val_images='train2017/')
    cfg = load_config(COCO, {'data_root': str(clean), **same}, complete=False)
    (source,) = check_datasets(cfg, workers=1).sources
    assert source.trains and source.evaluates
    train.write_text('{"images": 3}')
    (problem,) = [p for p in check(COCO, root).problems if p.source == str(train)]
    assert problem.kind == 'file unusable'


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize('difficult', ['<difficult>Unspecified</difficult>', '<difficult/>'])
def test_difficult_that_is_no_number(voc_folder: Path, difficult: str) -> None:
    replace(voc_folder / 'Annotations' / 'image0.xml', '<difficult>0</difficult>', difficult)
    assert found(check(VOC, voc_folder)) == [
        ('image0', 'object unreadable', number) for number in (0, 1)
    ]


def test_annotations_that_no_list_names(
    tmp_path: Path, voc_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = [voc_object('cell'), voc_object('rare', 9, 9, 9, 9)]
    write_voc_image(voc_folder, 'image5', objects, seed=5)
    write_voc_image(voc_folder, 'other', [voc_object('zebra')])
    annotations = voc_folder / 'Annotations'
    (annotations / 'broken.xml').write_text('<annotation>')
    (annotations / 'long.xml').write_text(f'<annotation>{voc_object("x" * 201)}</annotation>')
    report = check(VOC, voc_folder)
    assert found(report) == [
        ('broken', 'annotation unreadable', None),
        ('image5', 'zero area', 1),
        ('long', 'name', None),
    ]
    capsys.readouterr()
    clean = write_clean(report, tmp_path / 'clean')
    assert capsys.readouterr().out == f'{clean}: classes that no object is left of: rare\n'
    assert check(VOC, clean).problems == []
    assert read_classes(clean) == ('cell', 'dot', 'ring', 'zebra')
    some = {'train_dataloader.dataset.metainfo.classes': ['cell', 'dot', 'ring', 'rare']}
    cfg = load_config(VOC, {'data_root': str(voc_folder), **some}, complete=False)
    assert found(check_datasets(cfg, workers=1)) == [('image5', 'zero area', 1)]  # none is read


def test_folders_of_other_names(
    tmp_path: Path, voc_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (voc_folder / 'boxes').mkdir()
    (voc_folder / 'JPEGImages').rename(voc_folder / 'imgs')
    (voc_folder / 'Annotations').rename(voc_folder / 'boxes' / 'xml')
    write_split(voc_folder, 'test', ['image3', 'image4', 'image5'])
    named = {
        f'{split}_dataloader.dataset.{key}': value
        for split in ('train', 'val', 'test')
        for key, value in (('img_subdir', 'imgs'), ('ann_subdir', 'boxes/xml'))
    }
    (voc_folder / 'boxes' / 'xml' / 'broken.xml').write_text('<annotation>')
    settings = {'data_root': str(voc_folder), **named}
    report = check_datasets(load_config(VOC, settings, complete=False), workers=1)
    assert found(report) == [
        ('broken', 'annotation unreadable', None),
        ('image3', 'trained and evaluated', None),
    ]
    clean = write_clean(report, tmp_path / 'clean')
    cfg = load_config(VOC, {**settings, 'data_root': str(clean)})
    assert cfg.train_dataloader.dataset.metainfo.classes == ('cell', 'dot', 'ring')
    assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 3
    (voc_folder / 'boxes' / 'xml' / 'broken.xml').unlink()
    load_config(VOC, settings)
    shared = f'1 images are trained on and evaluated, e.g. {voc_folder / "imgs" / "image3"}'
    assert shared in capsys.readouterr().out


def test_box_outside_an_image_whose_annotation_gives_no_size(voc_folder: Path) -> None:
    write_voc_image(voc_folder, 'image0', [voc_object('cell', 97, 1, 99, 9)], size=None)
    write_voc_image(voc_folder, 'image1', [voc_object('cell', 96, 1, 99, 9)], size=None)
    assert found(check(VOC, voc_folder)) == [('image0', 'outside the image', 0)]


def test_two_images_of_one_name(tmp_path: Path, voc_folder: Path) -> None:
    write_voc_image(voc_folder, 'image0', [voc_object('cell')], suffix='.png', seed=9)
    report = check(VOC, voc_folder)
    assert found(report) == [('image0', 'two images of one name', None)]
    assert check(VOC, write_clean(report, tmp_path / 'clean')).problems == []


def test_nothing_to_evaluate(tmp_path: Path, voc_folder: Path) -> None:
    for name in (voc_folder / 'ImageSets' / 'Main' / 'test.txt').read_text().split():
        write_voc_image(voc_folder, name, [], seed=int(name[5:]))
    (problem,) = check(VOC, voc_folder).problems
    assert (problem.kind, Path(problem.source).name) == ('no box to evaluate', 'test.txt')
    with pytest.raises(ValueError, match=r'test\.txt: no box would be left; mend this first'):
        write_clean(check(VOC, voc_folder), tmp_path / 'clean')
    for name in (voc_folder / 'ImageSets' / 'Main' / 'test.txt').read_text().split():
        difficult = voc_object('cell', difficult=True)
        write_voc_image(voc_folder, name, [difficult], seed=int(name[5:]))
    (problem,) = check(VOC, voc_folder).problems
    ignored = 'has a box that is neither difficult nor a crowd: mAP is 0 or -1'
    assert problem.kind == 'no box to evaluate' and problem.detail.endswith(ignored)
    root = write_coco_folder(tmp_path / 'coco')
    val = root / 'annotations' / 'instances_val2017.json'
    change(val, lambda content: [a.update(iscrowd=1) for a in content['annotations']])
    *_, problem = check(COCO, root).problems
    assert problem.kind == 'no box to evaluate' and problem.detail.endswith(ignored)
    with pytest.raises(ValueError, match=r'val2017\.json: no box would be left; mend this first'):
        write_clean(check(COCO, root), tmp_path / 'clean')
    change(val, lambda content: content['annotations'].clear())
    (unusable,) = (p for p in check(COCO, root).problems if p.source == str(val))
    assert unusable.kind == 'file unusable' and 'annotations' in unusable.detail


def test_what_stops_a_training_though_each_image_is_good(tmp_path: Path, voc_folder: Path) -> None:
    for index in range(4):
        write_voc_image(voc_folder, f'image{index}', [], seed=index)
    (problem,) = check(VOC, voc_folder).problems
    assert problem.kind == 'file unusable' and problem.source.endswith('trainval.txt')
    assert problem.detail.startswith('no image left of 4 listed')
    root = write_coco_folder(tmp_path / 'coco')
    train, val = (root / 'annotations' / f'instances_{name}2017.json' for name in ('train', 'val'))
    for file in (train, val):
        change(file, lambda content: content['annotations'].pop())  # too narrow
    assert check(COCO, root).problems == []
    change(val, lambda content: content['categories'][0].update(name='other'))
    (problem,) = check(COCO, root).problems
    assert problem.source == str(val) and 'its classes are not those of' in problem.detail
    change(val, lambda content: content['categories'][0].update(name='ring'))
    change(train, lambda content: [a.update(iscrowd=1) for a in content['annotations']])
    (problem,) = check(COCO, root).problems
    assert problem.source == str(train) and problem.detail.startswith('no image left of 5 listed')
    with pytest.raises(ValueError, match=r'train2017\.json: no image left .*; mend this first'):
        write_clean(check(COCO, root), tmp_path / 'clean')


@pytest.mark.parametrize('layout', ['plain', 'nested', 'from beside'])
def test_clean_copy_of_other_layouts(tmp_path: Path, layout: str) -> None:
    root = write_coco_folder(tmp_path / 'coco')
    if layout == 'from beside':  # file names that leave the folder of images, which has none itself
        (root / 'list').mkdir()
        files = dict(train_images='list/')
        change(
            root / 'annotations' / 'instances_train2017.json',
            lambda content: [
                image.update(file_name=f'../train2017/{image["file_name"]}')
                for image in content['images']
            ],
        )
    elif layout == 'nested':  # one folder of images below the other
        (root / 'val2017').rename(root / 'images')
        (root / 'train2017').rename(root / 'images' / 'train')
        files = dict(train_images='images/train/', val_images='images/')
    else:  # annotations beside the images
        files = {}
        for split, name in (('train', 'train2017'), ('val', 'val2017')):
            (root / f'annotations/instances_{name}.json').rename(root / name / 'coco.json')
            files |= {f'{split}_ann': f'{name}/coco.json', f'{split}_images': name}

    def checked(folder: Path) -> Report:
        return check_datasets(
            load_config(COCO, {'data_root': str(folder), **files}, complete=False), workers=1
        )

    before = sorted(root.rglob('*'))
    report = checked(root)
    assert {Path(problem.image).name for problem in report.problems} == {'c.png'}
    clean = write_clean(report, tmp_path / 'clean')
    after = checked(clean)
    assert after.problems == [] and [len(source.names) for source in after.sources] == [5, 5]
    assert sorted(root.rglob('*')) == before
    assert sum(path.is_symlink() for path in clean.rglob('*')) == 10


def test_clean_copy_links_to_nothing_outside_its_folder(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / 'coco')
    (root / 'train2017').rename(tmp_path / 'train')
    cfg = load_config(COCO, {'data_root': str(root), 'train_images': '../train'}, complete=False)
    with pytest.raises(ValueError, match=r'a\.jpg: lies outside .*coco'):
        write_clean(check_datasets(cfg, workers=1), tmp_path / 'clean')
    (root / 'annotations' / 'instances_train2017.json').rename(tmp_path / 'train' / 'a.json')
    (root / 'train2017').symlink_to(tmp_path / 'train')
    cfg = load_config(
        COCO, {'data_root': str(root), 'train_ann': '../train/a.json'}, complete=False
    )
    with pytest.raises(ValueError, match=r'a\.json: lies outside .*coco'):
        write_clean(check_datasets(cfg, workers=1), tmp_path / 'clean')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['coco', 'train']


def test_no_clean_copy_without_anything_to_learn_or_to_find(
    tmp_path: Path, voc_folder: Path
) -> None:
    for name in range(4):
        write_voc_image(voc_folder, f'image{name}', [voc_object('cell', 'left')])
    with pytest.raises(ValueError, match=r'trainval\.txt: no box would be left; mend this first'):
        write_clean(check(VOC, voc_folder), tmp_path / 'new' / 'clean')
    for name in range(4):
        (voc_folder / 'JPEGImages' / f'image{name}.jpg').unlink()
    with pytest.raises(ValueError, match=r'trainval\.txt: no image would be left'):
        write_clean(check(VOC, voc_folder), tmp_path / 'new' / 'clean')
    root = write_coco_folder(tmp_path / 'coco')
    val = root / 'annotations' / 'instances_val2017.json'
    change(val, lambda content: content.update(annotations=content['annotations'][-1:]))
    with pytest.raises(ValueError, match=r'val2017\.json: no box would be left'):
        write_clean(check(COCO, root), tmp_path / 'new' / 'clean')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['coco', 'voc']


def test_clean_copy_leaves_annotations_listed_by_their_whole_path_as_they_are(
    tmp_path: Path, voc_folder: Path
) -> None:
    write_voc_image(voc_folder, 'image9', [voc_object('cell'), voc_object('dot', 9, 9, 9, 9)])
    for file in ('JPEGImages/image9.jpg', 'Annotations/image9.xml'):
        (voc_folder / file).rename(voc_folder / Path(file).name)
    write_split(voc_folder, 'trainval', ['image0', 'image1', str(voc_folder / 'image9')])
    before = (voc_folder / 'image9.xml').read_text()
    with pytest.raises(ValueError, match=r'trainval\.txt: names .*image9 by its whole path'):
        write_clean(check(VOC, voc_folder), tmp_path / 'clean')
    assert (voc_folder / 'image9.xml').read_text() == before


def test_clean_copy_writes_no_annotation_outside_its_folder(
    tmp_path: Path, voc_folder: Path
) -> None:
    """A name such as ../image9 leaves the root where the annotations lie in it, the images deeper."""
    write_voc_image(voc_folder, 'image9', [voc_object('cell'), voc_object('dot', 9, 9, 9, 9)])
    for file in sorted((voc_folder / 'Annotations').iterdir()):
        file.rename(voc_folder / file.name)
    outside = (voc_folder / 'image9.xml').rename(tmp_path / 'image9.xml')
    (voc_folder / 'JPEGImages' / 'image9.jpg').rename(voc_folder / 'image9.jpg')
    write_split(voc_folder, 'trainval', ['image0', '../image9'])
    cfg = load_config(VOC, {'data_root': str(voc_folder)}, complete=False)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.ann_subdir = ''
    before = outside.read_text()
    with pytest.raises(ValueError, match=r'image9\.xml: lies outside'):
        write_clean(check_datasets(cfg, workers=1), tmp_path / 'clean')
    assert outside.read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ['image9.xml', 'voc']


def test_clean_copy_without_data_root_and_folder_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_coco_folder(tmp_path / 'coco') / 'train2017'
    (root / '../annotations/instances_train2017.json').rename(root / 'a.json')
    monkeypatch.chdir(root)
    dataset = dict(type='CocoDataset', ann_file='a.json')
    report = check_datasets(Config(dict(train_dataloader=dict(dataset=dataset))), workers=1)
    assert [problem.image for problem in report.problems] == ['c.png']
    monkeypatch.chdir(write_clean(report, tmp_path / 'clean'))
    report = check_datasets(Config(dict(train_dataloader=dict(dataset=dataset))), workers=1)
    assert report.problems == []


def test_clean_copy_of_two_data_sets_that_spell_one_folder_differently(
    tmp_path: Path, voc_folder: Path
) -> None:
    write_voc_image(voc_folder, 'image0', [voc_object('cell'), voc_object('dot', 9, 9, 9, 9)])
    cfg = load_config(VOC, {'data_root': f'{voc_folder}/'}, complete=False)
    cfg.val_dataloader.dataset.data_root = str(voc_folder)
    cfg.test_dataloader.dataset.data_root = str(voc_folder)
    clean = write_clean(check_datasets(cfg, workers=1), tmp_path / 'clean')
    assert check(VOC, clean).problems == []


# ------------------------------------------------------------------------------------------------
# The command
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """Run the command; return its exit code, or its line of error, and what it printed."""

    def run(*arguments: object) -> tuple[Any, str]:
        monkeypatch.setattr(sys, 'argv', ['hoyer-det', 'check-data', *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            hoyer_det_cli.main()
        return stop.value.code, capsys.readouterr().out

    return run


def test_command(run: Callable, tmp_path: Path, voc_folder: Path) -> None:
    one = ('--workers', 1, '--cfg-options', f'data_root={voc_folder}')
    code, output = run(VOC, *one)
    assert code == 0 and 'trainval.txt: 4 images, 8 boxes, trained on' in output
    assert output.endswith('no problem found\n')
    write_voc_image(voc_folder, 'image0', [voc_object('cell', 9, 9, 9, 9), voc_object('cell')])
    file, clean = tmp_path / 'report.json', tmp_path / 'clean'
    code, output = run(VOC, '--json', file, '--write-clean', clean, *one)
    assert code == 1 and 'image0, box 0: cell 9, 9, 9, 9' in output and '1 problem' in output
    content = json.loads(file.read_text())
    assert [p['kind'] for p in content['problems']] == ['zero area']
    assert [source['boxes'] for source in content['sources']] == [8, 4]
    assert run(VOC, '--workers', 1, '--cfg-options', f'data_root={clean}')[0] == 0
    code, _ = run(VOC, '--write-clean', clean, *one)
    assert code == f'error: --write-clean {clean}: exists already; name a new folder'
    assert run(VOC, '--cfg-options', 'data_root=nowhere')[0].startswith('error: nowhere/: no such')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['clean', 'report.json', 'voc']


def test_command_refuses_a_place_for_the_copy_before_it_reads_anything(
    run: Callable, tmp_path: Path, voc_folder: Path
) -> None:
    (tmp_path / 'file').touch()
    (tmp_path / 'link').symlink_to(tmp_path / 'gone')
    for place, fault in (('file/new', 'file is a file'), ('link', 'exists already')):
        flags = ('--write-clean', tmp_path / place, '--cfg-options', f'data_root={voc_folder}')
        code, output = run(VOC, *flags)
        assert code.startswith(f'error: --write-clean {tmp_path / place}: ') and fault in code
        assert output == ''
    code, output = run(VOC, '--write-clean', '', '--cfg-options', f'data_root={voc_folder}')
    assert code.startswith('error: --write-clean .: exists already') and output == ''


def test_command_takes_files_with_spaces_commas_and_brackets(run: Callable, tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / 'coco')
    (root / 'annotations' / 'instances_train2017.json').rename(root / 'a, b (c.json')
    (root / 'train2017').rename(root / 'd, e [f')
    files = ('train_ann=a, b (c.json', 'train_images=d, e [f')
    code, output = run(COCO, '--workers', 1, '--cfg-options', f'data_root={root}', *files)
    assert code == 1 and 'a, b (c.json: 5 images, 7 boxes, trained on' in output
    assert 'image missing' not in output


def test_command_tells_an_empty_list_from_an_unread_file(
    run: Callable, tmp_path: Path, voc_folder: Path
) -> None:
    (voc_folder / 'ImageSets' / 'Main' / 'test.txt').write_text('')
    code, output = run(VOC, '--workers', 1, '--cfg-options', f'data_root={voc_folder}')
    assert code == 1 and 'test.txt: 0 images, 0 boxes, evaluated\n' in output
    root = write_coco_folder(tmp_path / 'coco')
    (root / 'annotations' / 'instances_val2017.json').write_text('{')
    code, output = run(COCO, '--workers', 1, '--cfg-options', f'data_root={root}')
    assert code == 1 and 'instances_val2017.json: not read, evaluated\n' in output


def test_file_name_that_is_not_utf8(run: Callable, tmp_path: Path, voc_folder: Path) -> None:
    (voc_folder / 'Annotations' / os.fsdecode(b'\xff.xml')).write_text('<annotation>')
    file, more = tmp_path / 'a.json', ('--annotations-only', '--workers', 1)
    data = ('--cfg-options', f'data_root={voc_folder}')
    code, output = run(VOC, '--json', file, *more, *data)
    assert code == 1 and r'\udcff: ' in output and output.endswith('1 problem\n')
    (problem,) = json.loads(file.read_text())['problems']
    assert os.fsencode(problem['image']) == b'\xff'


def test_a_json_file_that_cannot_be_written_is_refused_before_the_check(
    run: Callable, tmp_path: Path, voc_folder: Path
) -> None:
    file = tmp_path / 'file'
    file.write_text('')
    data = ('--cfg-options', f'data_root={voc_folder}')
    for place, fault in (tmp_path, 'is a folder'), (file / 'a.json', f'{file} is a file'):
        code, output = run(VOC, '--json', place, *data)
        assert f'--json {place}: ' in code and fault in code and not output


@pytest.mark.skipif(not DATA.is_dir(), reason=f'{DATA} is not there')
def test_blood_cells_have_two_boxes_without_area(run: Callable, tmp_path: Path) -> None:
    file = tmp_path / 'report.json'
    code, _ = run(VOC, '--json', file, '--cfg-options', f'data_root={DATA / "bccd"}')
    problems = json.loads(file.read_text())['problems']
    assert code == 1 and [(p['image'], p['kind']) for p in problems] == [
        ('BloodImage_00338', 'zero area'),
        ('BloodImage_00343', 'zero area'),
    ]
