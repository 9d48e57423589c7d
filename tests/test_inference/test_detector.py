"""``load`` and ``predict``: the model's own test pipeline, from the checkpoint alone."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detector_file import CLASSES, CONFIG, save_detector, write_images, write_video
from hoyer_det import load
from hoyer_det.inference import Detections, Detector
from mmdet.apis import DetInferencer
from mmdet.registry import DATASETS
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from torch import nn


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    path = tmp_path_factory.mktemp('run') / 'epoch_1.pth'
    return save_detector(path), path


@pytest.fixture(scope='module')
def detector(trained: tuple[nn.Module, Path]) -> Detector:
    return load(trained[1], 'cpu')


def test_predict_is_the_models_own_test_pipeline(trained, detector, tmp_path):
    model, _ = trained
    paths = write_images(tmp_path, 'a.png', 'b.png')
    pipeline = Compose(Config.fromfile(CONFIG).test_dataloader.dataset.pipeline)
    for path, found in zip(paths, detector.predict(paths, score_thr=0.0), strict=True):
        data = pipeline(dict(img_path=path, img_id=0, instances=[]))
        with torch.no_grad():
            (sample,) = model.test_step(pseudo_collate([data]))
        expected = sample.pred_instances
        assert len(found) == len(expected.scores) > 0
        np.testing.assert_array_equal(found.boxes, expected.bboxes.numpy())
        np.testing.assert_array_equal(found.scores, expected.scores.numpy())
        np.testing.assert_array_equal(found.labels, expected.labels.numpy())
        assert found.names == [CLASSES[label] for label in expected.labels]
        assert found.size == (80, 96) and found.source == path and found.frame is None


def test_arrays_files_folders_and_videos_are_the_same_images(detector, tmp_path):
    path, _ = write_images(tmp_path / 'images', 'a.png', 'b.png')
    all_found = detector.predict([cv2.imread(path), path, tmp_path / 'images'], score_thr=0.0)
    assert [Path(found.source).name for found in all_found] == ['array', 'a.png', 'a.png', 'b.png']
    all_found[3] = detector.detect(Path(path), score_thr=0.0)
    assert all_found[3].source == path and detector.detect(path, source='x').source == 'x'
    for found in all_found[1:]:
        np.testing.assert_array_equal(found.boxes, all_found[0].boxes)
    drawn = detector.draw(Path(path), all_found[3])
    np.testing.assert_array_equal(drawn, detector.draw(path, all_found[3]))
    frames = detector.predict(write_video(tmp_path / 'v.avi', 3), score_thr=0.0)
    assert [found.frame for found in frames] == [0, 1, 2]


def test_a_video_that_is_cut_short_gives_a_warning(detector, tmp_path):
    film = Path(write_video(tmp_path / 'v.avi', 3))
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.warns(UserWarning, match=f'{film}: 1 of 3 frames could be read; '):
        assert len(detector.predict(film)) == 1


def test_threshold(detector, tmp_path):
    (path,) = write_images(tmp_path, 'a.png')
    (everything,) = detector.predict(path, score_thr=0.0)
    level = float(np.median(everything.scores))
    (kept,) = detector.predict(path, score_thr=level)
    assert len(kept) == (everything.scores >= level).sum() < len(everything)


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=['float', '16 bits', 'alpha', 'grey', 'channels first', 'empty'],
)
def test_an_array_that_is_no_image_is_refused(detector, image):
    with pytest.raises(ValueError, match='an image must be BGR pixels of uint8'):
        detector.predict(image)


@pytest.mark.parametrize('item', [torch.zeros(3, 8, 8), 2.5, None])
def test_what_is_no_input_is_named(detector, item):
    with pytest.raises(ValueError, match=f'{type(item).__name__}: no input; give files'):
        detector.predict(item)


@pytest.mark.parametrize('score_thr', [float('nan'), 2, -0.1, '0.3', None])
def test_a_threshold_that_is_no_score_is_refused(detector, score_thr):
    with pytest.raises(ValueError, match='must be a number from 0 to 1'):
        detector.predict(np.zeros((8, 8, 3), np.uint8), score_thr)


def test_a_device_whose_error_says_nothing(trained, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr(torch, 'zeros', fail)
    with pytest.raises(ValueError, match=r"^device 'cpu': cannot be used here \(RuntimeError"):
        load(trained[1], 'cpu')


def test_threads_are_for_exported_files(trained):
    with pytest.raises(ValueError, match='threads 2 is for exported files'):
        load(trained[1], 'cpu', threads=2)


def test_detections_that_do_not_fit():
    array = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match='boxes of shape'):
        Detections(np.zeros((2, 4)), array, array.astype(int), CLASSES, (1, 1), 'x')
    with pytest.raises(ValueError, match='labels up to 6, 6 classes'):
        Detections(np.zeros((1, 4)), array, np.array([6]), CLASSES, (1, 1), 'x')


def test_neither_makes_nor_needs_the_training_data(trained, tmp_path, monkeypatch):
    """Also MMDetection's own inferencer, which builds the data set for its palette."""
    monkeypatch.chdir(tmp_path)
    load(trained[1], 'cpu')
    DetInferencer(weights=str(trained[1]), device='cpu', show_progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('kind', ['VOCFormatDataset', 'CocoFormatDataset', 'ShapesDataset'])
def test_a_lazy_data_set_needs_no_folder(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = dict(type=kind, data_root='gone/', ann_file='a.txt', lazy_init=True, pipeline=[])
    if kind != 'ShapesDataset':
        cfg.update(metainfo=dict(classes=('a', 'b')), data_prefix=dict(sub_data_root='', img='x/'))
    dataset = DATASETS.build(cfg)
    assert dataset.metainfo['classes'] == (CLASSES if kind == 'ShapesDataset' else ('a', 'b'))
    assert not list(tmp_path.iterdir())
    if kind != 'ShapesDataset':
        with pytest.raises(FileNotFoundError, match='a.txt'):
            dataset.full_init()


def test_wrappers_around_the_data_set(trained, tmp_path):
    content = torch.load(trained[1], weights_only=True)
    content['meta']['cfg'] += (
        "\ntest_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(type='X', "
        "pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(128, 128), "
        "keep_ratio=False), dict(type='PackDetInputs')])))\n"
    )
    torch.save(content, tmp_path / 'x.pth')
    assert len(load(tmp_path / 'x.pth', 'cpu').predict(np.zeros((64, 64, 3), np.uint8))) == 1


@pytest.mark.parametrize('poly2mask', [True, False])
def test_steps_that_read_annotations_find_none(trained, detector, tmp_path, poly2mask):
    content = torch.load(trained[1], weights_only=True)
    cfg = Config.fromstring(content['meta']['cfg'], '.py')
    (step,) = (s for s in cfg.test_dataloader.dataset.pipeline if s.type == 'LoadAnnotations')
    step.update(with_mask=True, with_seg=True, poly2mask=poly2mask)
    content['meta']['cfg'] = cfg.pretty_text
    torch.save(content, tmp_path / 'x.pth')
    image = np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8)
    (expected,), (found,) = (
        model.predict(image, 0.0) for model in (detector, load(tmp_path / 'x.pth', 'cpu'))
    )
    np.testing.assert_array_equal(found.boxes, expected.boxes)


def test_preprocessor_beside_the_model_is_the_models(trained, detector, tmp_path):
    content = torch.load(trained[1], weights_only=True)
    cfg = Config.fromstring(content['meta']['cfg'], '.py')
    cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
    content['meta']['cfg'] = cfg.pretty_text
    torch.save(content, tmp_path / 'x.pth')
    (path,) = write_images(tmp_path, 'a.png')
    (expected,), (found,) = (
        model.predict(path, 0.0) for model in (detector, load(tmp_path / 'x.pth', 'cpu'))
    )
    np.testing.assert_array_equal(found.boxes, expected.boxes)


def test_nothing_of_a_detector_stays_in_the_process(trained):
    before = set(DetLocalVisualizer._instance_dict)
    load(trained[1], 'cpu')
    assert set(DetLocalVisualizer._instance_dict) == before
