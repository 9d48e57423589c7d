"""int8 files of ReLU twins."""

from pathlib import Path

import hoyer_det_runtime
import numpy as np
import onnx
import pytest
from hoyer_det.deploy.export import ExportSettings, export
from hoyer_det.deploy.int8 import quantizer, training_images
from mmengine.config import Config, ConfigDict
from onnx.numpy_helper import to_array
from tiny_detectors import SIDE, tiny_config, tiny_detector


@pytest.fixture(scope='module')
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ReLU twin of a tiny SSD, exported in float32."""
    cfg = relu_config()
    path = tmp_path_factory.mktemp('float') / 'float.onnx'
    export(tiny_detector(cfg), cfg, path, ExportSettings(real=True))
    return path


def relu_config() -> Config:
    cfg = tiny_config('ssd')
    for part in ('backbone', 'neck'):
        cfg.model[part].act_cfg = dict(type='ReLU')
    return cfg


@pytest.mark.parametrize('heads', ['int8', 'fp32'])
def test_relu_twin_becomes_int8(heads, tmp_path, voc_folder, float_file):
    cfg = relu_config()
    cfg.train_dataloader = ConfigDict(
        dataset=dict(type='VOCFormatDataset', data_root=str(voc_folder), pipeline=[])
    )
    model = tiny_detector(cfg)
    out = tmp_path / 'out'
    out.mkdir()
    quantize = quantizer(training_images(cfg, 4), heads)
    outcome = export(model, cfg, out / 'int8.onnx', ExportSettings(), quantize=quantize)
    assert outcome.kind == 'int8'
    assert [path.name for path in out.iterdir()] == ['int8.onnx']
    graph = onnx.load(out / 'int8.onnx').graph
    stored = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    behind = {out: node for node in graph.node for out in node.output}
    convs = [node for node in graph.node if node.op_type == 'Conv']
    sources = [behind.get(conv.input[1]) for conv in convs]
    rounded = [stored[s.input[0]] for s in sources if s and s.op_type == 'DequantizeLinear']
    assert len(rounded) == len(convs) - (6 if heads == 'fp32' else 0)  # 2 read-outs a level
    assert all(weight.dtype == np.int8 and np.abs(weight).max() in (63, 64) for weight in rounded)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE), np.uint8)
    real, whole = (
        hoyer_det_runtime.load(file).engine(images) for file in (float_file, out / 'int8.onnx')
    )
    assert 0 < np.abs(real['scores'] - whole['scores']).mean() < 0.1
    assert np.corrcoef(real['scores'].ravel(), whole['scores'].ravel())[0, 1] > 0.9


def test_calibration_needs_images():
    cfg = tiny_config('ssd')
    with pytest.raises(ValueError, match='0 calibration images; at least 1'):
        training_images(cfg, 0)
    with pytest.raises(ValueError, match='no train_dataloader to take calibration images from'):
        training_images(cfg, 4)
