"""How the test pipeline of a config becomes what an exported file says about its input."""

from types import SimpleNamespace

import numpy as np
import pytest
from hoyer_det.deploy.description import input_of
from hoyer_det_runtime.preprocessing import prepare
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmengine.config import Config
from tiny_detectors import SIDE, tiny_config

MEAN = dict(mean=[120.0, 110, 100], std=[60.0] * 3, pad_size_divisor=32)


def described(cfg: Config, shape: tuple[int, int] | None = None, **preprocessor: object) -> dict:
    model = SimpleNamespace(data_preprocessor=DetDataPreprocessor(**MEAN, **preprocessor))
    return input_of(cfg, model, shape)


@pytest.mark.parametrize('keep_ratio', [False, True])
def test_images_fill_the_shape_that_is_asked_for(keep_ratio):
    cfg = tiny_config('yolo', keep_ratio)
    for shape in (None, (128, 128), (32, 32)):
        spec = described(cfg, shape)
        pixels, factors = prepare(np.full((100, 100, 3), 9, np.uint8), spec)
        height, width = shape or (SIDE, SIDE)
        assert pixels.shape == (3, height, width) and (pixels == 9).all()
        assert factors == (width / 100, height / 100)
    with pytest.raises(ValueError, match=r'\(33, 64\) must be multiples of 32'):
        described(cfg, (33, 64))


@pytest.mark.parametrize(
    'step, setting, words',
    [
        (0, dict(to_float32=True), 'LoadImageFromFile .* to_float32=True; the runtime knows False'),
        (
            0,
            dict(color_type='grayscale'),
            "color_type='grayscale'; the runtime knows 'color' alone",
        ),
        (0, dict(imdecode_backend='pillow'), "imdecode_backend='pillow'; the runtime knows 'cv2'"),
        (1, dict(interpolation='nearest'), "Resize .*interpolation='nearest'.* knows 'bilinear'"),
        (1, dict(backend='pillow'), "Resize of the test pipeline has backend='pillow'; .* 'cv2'"),
        (1, dict(type='Albu'), 'the test pipeline has Albu, which the runtime does not know'),
    ],
)
def test_what_would_change_pixels_is_named(step, setting, words):
    cfg = tiny_config('ssd')
    cfg.test_dataloader.dataset.pipeline[step].update(setting)
    with pytest.raises(ValueError, match=words):
        described(cfg)


def test_padding_of_normalised_images():
    assert described(tiny_config('ssd'))['pad'] == 110
    with pytest.raises(ValueError, match='pad_value=114; where it normalises images'):
        described(tiny_config('ssd'), pad_value=114)
