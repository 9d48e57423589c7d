"""Exported networks with a stream past their convolutions."""

import shutil

import hoyer_det_runtime
import numpy as np
import pytest
from hoyer_det.deploy.export import ExportSettings, export
from tiny_detectors import SIDE, tiny_config, tiny_detector


@pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')
@pytest.mark.parametrize('name', ['ssd', 'yolo'])
def test_shortcut_network_spikes_alike_in_onnxruntime_and_the_engine_on_spikes(name, tmp_path):
    cfg = tiny_config(name)
    cfg.model.backbone.update(shortcut=True, out_stream=True)
    cfg.model.neck.shortcut = True
    engines = 'onnxruntime', 'spikes'
    outcome = export(tiny_detector(cfg), cfg, tmp_path / 'm.onnx', ExportSettings(engines=engines))
    assert [comparison.engine for comparison in outcome.comparisons] == list(engines)
    for comparison in outcome.comparisons:
        assert comparison.good and comparison.spikes > 8000
        assert comparison.rounded < 1e-4 * comparison.spikes
    images = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE), np.uint8)
    found = [hoyer_det_runtime.load(tmp_path / 'm.onnx', name).engine(images) for name in engines]
    for key in ('boxes', 'scores'):
        np.testing.assert_allclose(found[1][key], found[0][key], rtol=1e-4, atol=1e-4)
