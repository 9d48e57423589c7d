"""Faults of annotations and images: each is found, named, and gone from the clean copy."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coco_folder import change, write_coco_folder
from conftest import CONFIGS, REPOSITORY, voc_object, write_split, write_voc_image
from hoyer_det.commands import check_data
from hoyer_det.config import load_config
from hoyer_det.datasets.check import Report, check_datasets
from hoyer_det.datasets.clean import write_clean
from mmdet.registry import DATASETS
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
    assert 'EXIF orientation (8) turns it' in turned
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


# ------------------------------------------------------------------------------------------------
# The command
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """Run the command; return its exit code, or its line of error, and what it printed."""

    def run(*arguments: object) -> tuple[Any, str]:
        monkeypatch.setattr(sys, 'argv', ['check-data', *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            check_data.main()
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
    assert code == 1 and 'image0, box 0: cell 9, 9, 9, 9' in output and '1 problems' in output
    content = json.loads(file.read_text())
    assert [p['kind'] for p in content['problems']] == ['zero area']
    assert [source['boxes'] for source in content['sources']] == [8, 4]
    assert run(VOC, '--workers', 1, '--cfg-options', f'data_root={clean}')[0] == 0
    code, _ = run(VOC, '--write-clean', clean, *one)
    assert code == f'error: --write-clean {clean}: exists already'
    assert run(VOC, '--cfg-options', 'data_root=nowhere')[0].startswith('error: nowhere/: no such')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['clean', 'report.json', 'voc']


@pytest.mark.skipif(not DATA.is_dir(), reason=f'{DATA} is not there')
def test_blood_cells_have_two_boxes_without_area(run: Callable, tmp_path: Path) -> None:
    file = tmp_path / 'report.json'
    code, _ = run(VOC, '--json', file, '--cfg-options', f'data_root={DATA / "bccd"}')
    problems = json.loads(file.read_text())['problems']
    assert code == 1 and [(p['image'], p['kind']) for p in problems] == [
        ('BloodImage_00338', 'zero area'),
        ('BloodImage_00343', 'zero area'),
    ]
