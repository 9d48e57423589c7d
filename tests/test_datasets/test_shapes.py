"""The sample data set: boxes as MMDetection reads them, true geometry, no hint in the colours."""

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hoyer_det.datasets import shapes
from hoyer_det.datasets.shapes import SHAPE_CLASSES, draw_shape, generate_shapes

SPLITS = ('trainval', 'test')


def read_files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob('*') if p.is_file()}


def read_boxes(file: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield class and box of each object, first and last pixel counted from 0."""
    for item in ET.parse(file).iter('object'):
        keys = ('xmin', 'ymin', 'xmax', 'ymax')
        yield item.findtext('name'), [int(item.findtext(f'bndbox/{key}')) - 1 for key in keys]


def no_render(*args: object) -> None:
    raise AssertionError('rendered again')


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'shapes'
    return generate_shapes(root, num_train=33, num_test=7, image_size=96, seed=3)


@pytest.fixture(scope='module')
def single(tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    """Class, box and foreground pixels of images with one shape on an even background."""
    root = tmp_path_factory.mktemp('single') / 'shapes'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, 'MAX_OBJECTS', 1)
        grey = lambda rng, size: np.full((size, size, 3), 128, np.float32)  # noqa: E731
        patch.setattr(shapes, '_draw_background', grey)
        generate_shapes(root, num_train=300, num_test=1, image_size=128)
    found = []
    for file in sorted((root / 'Annotations').glob('trainval_*.xml')):
        ((name, box),) = read_boxes(file)
        pixels = cv2.imread(str(root / 'JPEGImages' / f'{file.stem}.jpg')).astype(float)
        # The background is the most frequent colour by far; shapes cover 20 % at most.
        distance = np.linalg.norm(pixels - np.median(pixels, axis=(0, 1)), axis=-1)
        mask = cv2.medianBlur((distance > 32).astype(np.uint8), 3) > 0
        found.append((name, box, mask, pixels[mask].mean(0)))
    return found


def test_layout(dataset: Path) -> None:
    ids = {s: (dataset / f'ImageSets/Main/{s}.txt').read_text().split() for s in SPLITS}
    assert len(ids['trainval']) == 33 and len(ids['test']) == 7
    assert not set(ids['trainval']) & set(ids['test'])
    everything = {*ids['trainval'], *ids['test']}
    assert {p.stem for p in (dataset / 'JPEGImages').iterdir()} == everything
    assert {p.stem for p in (dataset / 'Annotations').iterdir()} == everything
    for name in everything:
        assert cv2.imread(str(dataset / f'JPEGImages/{name}.jpg')).shape == (96, 96, 3)
        assert 1 <= len(ET.parse(dataset / f'Annotations/{name}.xml').findall('object')) <= 4


@pytest.mark.parametrize('split', SPLITS)
def test_mmdetection_reads_the_boxes_counted_from_0(dataset: Path, split: str) -> None:
    from mmdet.datasets import XMLDataset

    voc = XMLDataset(
        data_root=str(dataset),
        ann_file=f'ImageSets/Main/{split}.txt',
        data_prefix={'sub_data_root': ''},
        metainfo={'classes': SHAPE_CLASSES},
        pipeline=[],
    )
    assert len(voc) == {'trainval': 33, 'test': 7}[split]
    for info in map(voc.get_data_info, range(len(voc))):
        assert Path(info['img_path']).is_file()
        assert (info['width'], info['height']) == (96, 96)
        assert not any(instance['ignore_flag'] for instance in info['instances'])
        found = [(SHAPE_CLASSES[i['bbox_label']], i['bbox']) for i in info['instances']]
        assert found == list(read_boxes(dataset / 'Annotations' / f'{info["img_id"]}.xml'))


def test_boxes_are_within_bounds_and_of_the_stated_size(dataset: Path) -> None:
    sides = []
    for path in sorted((dataset / 'Annotations').iterdir()):
        root = ET.parse(path).getroot()
        assert root.findtext('filename') == f'{path.stem}.jpg'
        assert root.findtext('size/depth') == '3'
        for item in root.findall('object'):
            box = {e.tag: int(e.text) for e in item.find('bndbox')}
            assert 1 <= box['xmin'] < box['xmax'] <= 96
            assert 1 <= box['ymin'] < box['ymax'] <= 96
            side = 1 + max(box['xmax'] - box['xmin'], box['ymax'] - box['ymin'])
            if item.findtext('truncated') == '0':
                sides.append(side)
            assert side <= 0.55 * 96 + 2
            assert item.findtext('pose') and item.findtext('difficult') == '0'
    assert min(sides) >= 0.22 * 96 - 2
    assert max(sides) > 2 * min(sides)  # the scale does change


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    sizes = {'num_train': 6, 'num_test': 3, 'image_size': 64}
    first = read_files(generate_shapes(tmp_path / 'a', **sizes, seed=1))
    assert first == read_files(generate_shapes(tmp_path / 'b', **sizes, seed=1))
    other = read_files(generate_shapes(tmp_path / 'c', **sizes, seed=2))
    images = [name for name in first if name.endswith('.jpg')]
    assert len(images) == 9
    assert all(first[name] != other[name] for name in images)
    assert len({first[name] for name in images}) == 9


def test_an_image_does_not_depend_on_the_number_of_images(tmp_path: Path) -> None:
    few = read_files(generate_shapes(tmp_path / 'a', num_train=4, num_test=2, image_size=64))
    many = read_files(generate_shapes(tmp_path / 'b', num_train=9, num_test=3, image_size=64))
    common = [name for name in few if name.endswith(('.jpg', '.xml'))]
    assert len(common) == 12
    assert all(few[name] == many[name] for name in common)


# Area over the square of the longer side of the box, at an angle, worked out by hand.
GOLDEN = {
    'circle': (17.0, math.pi / 4),
    'square': (45.0, 1.0),
    'triangle': (0.0, math.sqrt(3) / 4),
    'star': (0.0, 5 * 0.42 * math.sin(math.pi / 5) / (2 * math.sin(2 * math.pi / 5)) ** 2),
    'cross': (0.0, 1 - (1 - 0.32) ** 2),
    'ring': (17.0, math.pi / 4 * (1 - 0.55**2)),
}


@pytest.mark.parametrize('name', SHAPE_CLASSES)
def test_drawn_geometry(name: str) -> None:
    angle, ratio = GOLDEN[name]
    (whole, inner), (x, y) = draw_shape(name, 60.0, angle, (80.3, 40.8), outline=2.0)
    rows, columns = np.flatnonzero(whole.max(1)), np.flatnonzero(whole.max(0))
    longer = 1 + max(rows[-1] - rows[0], columns[-1] - columns[0])
    assert 60 <= longer <= 62  # pixels touched by a length of 60
    assert whole.sum() == pytest.approx(ratio * 60**2, rel=0.03)
    assert x + (columns[0] + columns[-1] + 1) / 2 == pytest.approx(80.3, abs=0.6)
    assert y + (rows[0] + rows[-1] + 1) / 2 == pytest.approx(40.8, abs=0.6)
    assert inner.sum() < whole.sum() and (inner <= whole).all()


@pytest.mark.parametrize('angle', [0.0, 20.0, 33.0, 75.0])
def test_rotated_square_fills_what_trigonometry_says(angle: float) -> None:
    (whole, _), _ = draw_shape('square', 60.0, angle, (50.0, 50.0))
    turn = math.radians(angle + 45)  # the path starts with a corner
    expected = 3600 / (abs(math.cos(turn)) + abs(math.sin(turn))) ** 2
    assert whole.sum() == pytest.approx(expected, rel=0.03)


def test_boxes_are_tight_in_the_pixels(single: list[tuple]) -> None:
    errors = []
    for _, box, mask, _ in single:
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        seen = np.array([columns[0], rows[0], columns[-1], rows[-1]])
        errors.append(seen - box)
    errors = np.array(errors)
    # The median filter of this test clips sharp tips, hence the margin on single objects.
    assert np.abs(errors).max() <= 5
    assert np.quantile(np.abs(errors), 0.9) <= 1
    assert (np.median(errors, axis=0) == 0).all()


def test_labels_match_the_pixels(single: list[tuple]) -> None:
    """The filled part of the box, taken from the picture, is that of the labelled class."""
    ratios: dict[str, list[float]] = {name: [] for name in SHAPE_CLASSES}
    for name, (x1, y1, x2, y2), mask, _ in single:
        width, height = x2 - x1, y2 - y1
        inside = min(x1, y1) > 2 and max(x2, y2) < 125
        if inside and min(width, height) > 25:
            ratios[name].append(mask.sum() / ((width + 1) * (height + 1)))
    median = {name: np.median(values) for name, values in ratios.items()}
    assert median['circle'] == pytest.approx(math.pi / 4, abs=0.06)
    assert median['ring'] == pytest.approx(math.pi / 4 * (1 - 0.55**2), abs=0.06)
    assert 0.5 <= median['square'] <= 0.85
    order = [median[name] for name in ('circle', 'ring', 'cross', 'triangle', 'star')]
    assert all(larger > smaller for larger, smaller in pairwise(order))


def test_colour_does_not_give_the_class_away(single: list[tuple]) -> None:
    labels = np.array([SHAPE_CLASSES.index(name) for name, *_ in single])
    colours = np.array([colour for *_, colour in single])
    areas = [(x2 - x1) * (y2 - y1) for _, (x1, y1, x2, y2), *_ in single]
    fills = np.array([[m.sum() / area] for (_, _, m, _), area in zip(single, areas, strict=True)])

    def accuracy(features: np.ndarray) -> float:
        half = len(labels) // 2
        means = [features[:half][labels[:half] == k].mean(0) for k in range(len(SHAPE_CLASSES))]
        distances = np.linalg.norm(features[half:, None] - np.array(means), axis=-1)
        return float((distances.argmin(1) == labels[half:]).mean())

    assert accuracy(colours) < 0.26  # 1/6 by chance; 150 objects, so 3 standard errors
    assert accuracy(fills) > 0.4  # the same classifier does find what is there


def test_at_least_sixty_percent_of_every_shape_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[np.ndarray] = []
    find_box = shapes._touched_box
    monkeypatch.setattr(shapes, '_touched_box', lambda m: (masks.append(m), find_box(m))[1])
    hidden = 0
    for index in range(40):
        masks.clear()
        _, objects = shapes._render_image(np.random.default_rng(index), 96)
        for k, item in enumerate(objects):
            seen = masks[k].copy()
            for later in masks[k + 1 :]:
                seen *= 1 - later
            part = seen.sum() / masks[k].sum()
            assert part >= 0.6 - 1e-5
            assert item.occluded == (part < 0.99)
            hidden += item.occluded
    assert hidden > 5  # overlap does happen


def test_a_finished_set_is_left_alone(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob('*')}
    monkeypatch.setattr(shapes, '_render_image', no_render)
    arguments = {'num_train': 33, 'num_test': 7, 'image_size': 96}
    assert generate_shapes(str(dataset), **arguments, seed=3) == dataset
    with pytest.raises(ValueError, match=r'seed is 3, asked for 4\).*another folder or delete'):
        generate_shapes(dataset, **arguments, seed=4)
    assert before == {p: p.stat().st_mtime_ns for p in dataset.rglob('*')}


def test_a_set_of_another_format_version_is_refused(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, 'FORMAT_VERSION', shapes.FORMAT_VERSION + 1)
    with pytest.raises(ValueError, match='format_version is'):
        generate_shapes(dataset, num_train=33, num_test=7, image_size=96, seed=3)


def test_foreign_content_is_refused_and_kept(tmp_path: Path) -> None:
    root = tmp_path / 'mine'
    root.mkdir()
    (root / 'thesis.txt').write_text('years of work')
    with pytest.raises(FileExistsError, match=r'mine is not empty and has no shapes\.json'):
        generate_shapes(root, 2, 1, 64)
    with pytest.raises(FileExistsError, match='is a file'):
        generate_shapes(root / 'thesis.txt', 2, 1, 64)
    assert read_files(tmp_path) == {'mine/thesis.txt': b'years of work'}


@pytest.mark.parametrize('content', ['{"seed": 0', '[1, 2]', '7'])
def test_damaged_sets_are_reported(tmp_path: Path, content: str) -> None:
    root = generate_shapes(tmp_path / 'shapes', 2, 1, 64)
    image = next((root / 'JPEGImages').iterdir())
    image.write_bytes(b'')
    with pytest.raises(ValueError, match=rf'{image.name} is empty; delete'):
        generate_shapes(root, 2, 1, 64)
    image.unlink()
    with pytest.raises(ValueError, match=r'2 of 3 files JPEGImages/\*\.jpg; delete'):
        generate_shapes(root, 2, 1, 64)
    (root / 'shapes.json').write_text(content)
    with pytest.raises(ValueError, match=r'shapes\.json is unreadable'):
        generate_shapes(root, 2, 1, 64)


def test_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    render = shapes._render_image

    def stop_at_third(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return render(*args)

    monkeypatch.setattr(shapes, '_render_image', stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        generate_shapes(tmp_path / 'shapes', 4, 1, 64)
    assert list(tmp_path.iterdir()) == []
    assert generate_shapes(tmp_path / 'shapes', 4, 1, 64).is_dir()


def test_an_empty_folder_and_new_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'empty')
    assert (generate_shapes(tmp_path / 'link', 2, 1, 64) / 'JPEGImages').is_dir()
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'empty' / 'shapes.json').is_file()
    assert (generate_shapes(tmp_path / 'a' / 'b', 2, 1, 64) / 'shapes.json').is_file()


@pytest.mark.parametrize('seed_of_other', [0, 1])
def test_another_process_may_finish_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed_of_other: int
) -> None:
    root, write = tmp_path / 'shapes', shapes._write_dataset

    def write_while_other_finishes(*args, **kwargs):
        monkeypatch.setattr(shapes, '_write_dataset', write)
        generate_shapes(root, 2, 1, 64, seed_of_other)
        write(*args, **kwargs)

    monkeypatch.setattr(shapes, '_write_dataset', write_while_other_finishes)
    if seed_of_other == 0:
        assert generate_shapes(root, 2, 1, 64, seed=0) == root
    else:
        with pytest.raises(ValueError, match='seed is 1, asked for 0'):
            generate_shapes(root, 2, 1, 64, seed=0)
    assert list(tmp_path.iterdir()) == [root]
    assert json.loads((root / 'shapes.json').read_text())['seed'] == seed_of_other


@pytest.mark.parametrize(
    ('key', 'value'),
    [('num_train', 1), ('num_test', 0), ('image_size', 63), ('image_size', 96.0), ('seed', -1)],
)
def test_bad_arguments(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f'{key} must be an integer of at least .*, got {value}'):
        generate_shapes(tmp_path / 'shapes', **{key: value})
    assert list(tmp_path.iterdir()) == []
