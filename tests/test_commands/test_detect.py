"""``hoyer-det detect``: pictures, videos and JSON; wrong input in one line."""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detector_file import CLASSES, save_detector, write_images, write_video
from hoyer_det import load
from hoyer_det.commands import detect
from hoyer_det.inference.outputs import VideoFile, plan_outputs, write_picture
from hoyer_det.inference.sources import Image, find_sources
from pycocotools.coco import COCO


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('run') / 'epoch_1.pth'
    save_detector(path)
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the command in an empty folder."""
    (tmp_path / 'cwd').mkdir()
    monkeypatch.chdir(tmp_path / 'cwd')
    monkeypatch.delenv('HOYER_DET_TRACEBACK', raising=False)
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)

    def call(*arguments: object) -> None:
        flags = ['hoyer-det detect', *map(str, arguments), '--device', 'cpu']
        monkeypatch.setattr(sys, 'argv', flags)
        detect.main()

    return call


def test_json_and_pictures(run, checkpoint, tmp_path):
    first, second = write_images(tmp_path / 'images', 'a b.png', 'c.jpg')
    video = write_video(tmp_path / 'v.avi', 2)
    (also,) = write_images(tmp_path / 'other', 'c.png')
    run(checkpoint, tmp_path / 'images', video, also, second, '--score-thr', 0.15)
    written = sorted(path.name for path in Path('detections').iterdir())
    assert written == ['a_b.jpg', 'c.jpg', 'c_2.jpg', 'detections.json', 'v.mp4']
    assert sorted(path.name for path in Path().iterdir()) == ['detections']

    content = json.loads(Path('detections/detections.json').read_text())
    named = [(image['file_name'], image.get('frame')) for image in content['images']]
    assert named == [(first, None), (second, None), (video, 0), (video, 1), (also, None)]
    pictures = [image['picture'] for image in content['images']]
    assert pictures == ['a_b.jpg', 'c.jpg', 'v.mp4', 'v.mp4', 'c_2.jpg']
    assert all((image['width'], image['height']) == (96, 80) for image in content['images'])
    assert [category['name'] for category in content['categories']] == list(CLASSES)
    results = load(checkpoint, 'cpu').predict([first, second, video, also], score_thr=0.15)
    expected = [
        (number, label + 1, [x1, y1, x2 - x1, y2 - y1], score)
        for number, found in enumerate(results, start=1)
        for label, (x1, y1, x2, y2), score in zip(
            found.labels, found.boxes, found.scores, strict=True
        )
    ]
    assert len(content['annotations']) == len(expected) > 0
    for annotation, (image, category, box, score) in zip(
        content['annotations'], expected, strict=True
    ):
        assert (annotation['image_id'], annotation['category_id']) == (image, category)
        assert annotation['bbox'] == pytest.approx(box, abs=1e-3)
        assert annotation['score'] == pytest.approx(score, abs=1e-5)

    coco = COCO('detections/detections.json')
    assert len(coco.loadRes(content['annotations']).anns) == len(expected)
    capture = cv2.VideoCapture('detections/v.mp4')
    assert [capture.read()[0] for _ in range(3)] == [True, True, False]


def test_glob_and_a_model_of_the_zoo(run, tmp_path):
    write_images(tmp_path / 'images' / 'deep', 'a.png', 'b.PNG', 'notes.bmp')
    run('ssd_shapes', tmp_path / 'images' / '**' / '*.[pP][nN][gG]', '--out-dir', 'x/y')
    assert {path.name for path in Path('x/y').iterdir()} == {'a.jpg', 'b.jpg', 'detections.json'}


def test_an_unreadable_or_thin_image_is_left_out_and_named(run, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content['meta']['cfg'] += (
        "\ntest_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', "
        "scale=(128, 128), keep_ratio=True), dict(type='PackDetInputs')]))\n"
    )
    torch.save(content, tmp_path / 'keep_ratio.pth')
    write_images(tmp_path / 'images', 'a.png', 'd.png')
    (tmp_path / 'images' / 'b.png').write_text('no image')
    cv2.imwrite(str(tmp_path / 'images' / 'c.png'), np.zeros((1, 3000, 3), np.uint8))
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / 'keep_ratio.pth', tmp_path / 'images')
    assert stop.value.code.startswith('error: left out 2 images: ') and '\n' not in stop.value.code
    assert 'b.png: cannot be read as an image; ' in stop.value.code
    assert f'{tmp_path}/images/c.png: 3000 x 1 pixels cannot be resized' in stop.value.code
    assert len(json.loads(Path('detections/detections.json').read_text())['images']) == 2


def test_an_image_removed_meanwhile_is_left_out_and_named(run, checkpoint, tmp_path, monkeypatch):
    write_images(tmp_path / 'images', 'a.png', 'b.png')

    def late(*arguments):
        (tmp_path / 'images' / 'a.png').unlink()
        return load(*arguments)

    monkeypatch.setattr(detect, 'load', late)
    with pytest.raises(SystemExit, match='left out 1 images: .*a.png: no such file'):
        run(checkpoint, tmp_path / 'images')
    assert len(json.loads(Path('detections/detections.json').read_text())['images']) == 1


def test_a_video_that_is_cut_short_is_named(run, checkpoint, tmp_path):
    film = Path(write_video(tmp_path / 'v.avi', 3))
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.raises(SystemExit, match=f'^error: {film}: [12] of 3 frames could be read; '):
        run(checkpoint, film)
    images = json.loads(Path('detections/detections.json').read_text())['images']
    assert len(images) in (1, 2)


@pytest.mark.parametrize(
    'name, code', [('v.avi', 'MJPG'), ('v.mp4', 'mp4v'), ('v.wmv', 'WMV2'), ('v.mpg', 'MPEG')]
)
def test_whole_videos_are_not_said_to_be_cut_short(name, code, tmp_path):
    """Of two frames OpenCV reckons with 80 in a .wmv and 3 in a .mpg."""
    writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter_fourcc(*code), 25, (96, 80))
    for seed in range(2):
        writer.write(np.random.default_rng(seed).integers(0, 255, (80, 96, 3), np.uint8))
    writer.release()
    (video,) = find_sources([tmp_path / name])
    assert len(list(video.frames())) == 2 and not video.incomplete


def test_ctrl_c_keeps_what_is_done(run, checkpoint, tmp_path, monkeypatch):
    video = write_video(tmp_path / 'v.avi', 3)
    write = detect.VideoFile.write

    def interrupted(self, pixels):
        if self._writer is not None:
            raise KeyboardInterrupt
        write(self, pixels)

    monkeypatch.setattr(detect.VideoFile, 'write', interrupted)
    run(checkpoint, video)
    assert len(json.loads(Path('detections/detections.json').read_text())['images']) == 1
    assert cv2.VideoCapture('detections/v.mp4').read()[0]


@pytest.mark.parametrize(
    'error', [OSError(errno.ENOSPC, 'No space left on device'), RuntimeError('out of memory')]
)
def test_an_error_keeps_what_is_done(error, run, checkpoint, tmp_path, monkeypatch):
    write_images(tmp_path / 'images', 'a.png', 'b.png')
    write = detect.write_picture

    def full(pixels, path):
        if path.stem == 'b':
            raise error
        write(pixels, path)

    monkeypatch.setattr(detect, 'write_picture', full)
    with pytest.raises(SystemExit, match=error.args[-1]):
        run(checkpoint, tmp_path / 'images')
    (image,) = json.loads(Path('detections/detections.json').read_text())['images']
    assert image['file_name'].endswith('a.png')


def test_a_name_that_is_not_utf8(run, checkpoint, tmp_path):
    """As of old archives: the image is like any other, of a video OpenCV would end the process."""
    (path,) = write_images(tmp_path / 'images', 'a.png')
    old = Path(path).rename(tmp_path / 'images' / os.fsdecode(b'l\xe4.png'))
    run(checkpoint, old, '--score-thr', 0.15)
    (image,) = json.loads(Path('detections/detections.json').read_text())['images']
    assert image['file_name'] == str(old)
    film = Path(write_video(tmp_path / 'v.avi', 1)).rename(tmp_path / os.fsdecode(b'l\xe4.avi'))
    with pytest.raises(SystemExit, match=r'l\\udce4.avi\': OpenCV opens no video whose name'):
        run(checkpoint, film)


def test_a_video_that_is_not_whole_is_not_there(tmp_path, monkeypatch):
    video = VideoFile(tmp_path / 'v.mp4', 10)
    for _ in range(3):
        video.write(np.zeros((80, 96, 3), np.uint8))
    (part,) = tmp_path.iterdir()
    release = video._writer.release

    class Full:
        @staticmethod
        def release() -> None:
            release()
            part.write_bytes(part.read_bytes()[:200])  # as a full disk leaves it

    monkeypatch.setattr(video, '_writer', Full)
    with pytest.raises(OSError, match='v.mp4: cannot be written whole'):
        video.close()
    assert not list(tmp_path.iterdir())


def test_a_video_whose_name_is_as_long_as_can_be(tmp_path):
    video = VideoFile(tmp_path / f'{"v" * 251}.mp4', 10)
    video.write(np.zeros((80, 96, 3), np.uint8))
    video.close()
    assert list(tmp_path.iterdir()) == [video.path]


def test_a_picture_larger_than_a_jpeg_can_be_is_made_smaller(tmp_path):
    write_picture(np.full((4, 131000, 3), 200, np.uint8), tmp_path / 'a.jpg')
    assert cv2.imread(str(tmp_path / 'a.jpg')).shape == (2, 65500, 3)


def test_what_is_named_twice_is_taken_once(tmp_path, monkeypatch):
    (path,) = write_images(tmp_path, 'a.png')
    monkeypatch.chdir(tmp_path)
    named = ['.', './a.png', 'a.png', path, '*.png', Path('a.png')]
    assert find_sources(named) == [Image('a.png')]


def test_a_gif_in_a_folder_is_an_image(tmp_path):
    (path,) = write_images(tmp_path, 'a.png')
    (tmp_path / 'b.GIF').write_bytes(Path(path).read_bytes())
    assert find_sources([tmp_path]) == [Image(path), Image(str(tmp_path / 'b.GIF'))]


def test_many_sources_are_planned_at_once(tmp_path):
    sources = [Image(f'{folder}/{n}.png') for n in range(5000) for folder in 'ab']
    planned = plan_outputs(sources, tmp_path)
    assert len(set(planned)) == len(planned) == 10000
    assert planned[2:4] == [tmp_path / '1.jpg', tmp_path / '1_2.jpg']


def test_what_an_earlier_run_left_is_replaced(tmp_path):
    (tmp_path / 'detections').mkdir()
    for name in ('a.jpg', 'detections.json'):
        (tmp_path / 'detections' / name).touch()
    planned = plan_outputs([Image(str(tmp_path / 'a.png'))], tmp_path / 'detections')
    assert planned == [tmp_path / 'detections' / 'a.jpg']


@pytest.mark.parametrize('name', ['a.jpg', 'detections.json'])
def test_folder_in_the_place_of_an_output_is_refused_before_detecting(tmp_path, name):
    (tmp_path / 'out' / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=rf'{name}: is a folder; remove it, or choose another'):
        plan_outputs([Image(str(tmp_path / 'a.png'))], tmp_path / 'out')


def test_link_to_nothing_in_the_place_of_the_folder_is_refused_before_detecting(tmp_path, run):
    (tmp_path / 'out').symlink_to('unmounted')
    with pytest.raises(SystemExit, match='out is a link to nothing, a folder is needed'):
        run('ssd_shapes', 'a.png', '--out-dir', tmp_path / 'out')


# Arguments for a folder with what is made below, and what the one line says; more in wrong_flags.py and
# wrong_files.py of tests/test_reliability.
WRONG = {
    'empty video': (['good.pth', 'nothing.mp4'], 'nothing.mp4: no frame of this video can be read'),
    'no classes': (['nameless.pth', 'a.png'], 'nameless.pth: does not name its classes'),
    'weights missing': (['part.pth', 'a.png'], 'part.pth: does not belong to its own config: 1'),
    'not finite': (['nan.pth', 'a.png'], 'nan.pth: '),
    'no detector': (
        ['norm.pth', 'a.png'],
        'norm.pth: holds a BatchNorm2d, which is no detector of boxes',
    ),
    'picture beside': (['good.pth', 'a.png', '--out-dir', '.'], 'a.jpg: is there already'),
    'results beside': (
        ['good.pth', 'b.png', '--out-dir', '.'],
        'detections.json: is there already',
    ),
    'no screen': (['good.pth', 'a.png', '--show'], '--show: there is no screen here'),
}


@pytest.fixture(scope='module')
def wrong(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp('wrong')
    write_images(folder, 'a.png', 'b.png')
    (folder / 'nothing.mp4').touch()
    (folder / 'a.jpg').write_text('of the user')
    (folder / 'detections.json').write_text('of the user')
    (folder / 'good.pth').write_bytes(checkpoint.read_bytes())
    for name, change in {
        'nameless': lambda content: content['meta'].pop('dataset_meta'),
        'part': lambda content: content['state_dict'].popitem(),
        'nan': lambda content: content['state_dict']['bbox_head.cls_convs.0.0.bias'].fill_(
            float('nan')
        ),
        'norm': lambda content: (
            content['meta'].update(
                cfg=content['meta']['cfg'] + "\nmodel = dict(type='BN', num_features=2)\n"
            ),
            content.update(state_dict=torch.nn.BatchNorm2d(2).state_dict()),
        ),
    }.items():
        content = torch.load(checkpoint, weights_only=True)
        change(content)
        torch.save(content, folder / f'{name}.pth')
    return folder


@pytest.mark.parametrize('case', WRONG)
def test_wrong_input_gives_one_line(case, run, wrong, monkeypatch, capsys):
    arguments, message = WRONG[case]
    monkeypatch.chdir(wrong)
    before = {path: path.read_bytes() for path in wrong.iterdir()}
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    line = stop.value.code
    assert isinstance(line, str) and '\n' not in line
    assert line.startswith('error: ') and message in line
    assert 'Traceback' not in capsys.readouterr().err
    assert {path: path.read_bytes() for path in wrong.iterdir()} == before
