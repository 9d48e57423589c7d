"""Files of ReLU twins, int8 and float32, and of other networks in float32."""

from pathlib import Path

import hoyer_det_runtime
import numpy as np
import onnx
import pytest
import torch
from hoyer_det.deploy import export as export_module
from hoyer_det.deploy.export import ExportSettings, export
from hoyer_det.deploy.exported_detector import ExportedDetector
from hoyer_det.deploy.int8 import quantizer, training_images
from mmengine.config import Config, ConfigDict
from onnx.numpy_helper import to_array
from tiny_detectors import SIDE, tiny_config, tiny_detector


def relu_config() -> Config:
    cfg = tiny_config('ssd')
    for part in ('backbone', 'neck'):
        cfg.model[part].act_cfg = dict(type='ReLU')
    return cfg


@pytest.fixture(scope='module')
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ReLU twin of a tiny SSD, exported in float32."""
    cfg = relu_config()
    path = tmp_path_factory.mktemp('float') / 'float.onnx'
    settings = ExportSettings(real=True, engines=('onnxruntime', 'openvino'))
    outcome = export(tiny_detector(cfg), cfg, path, settings)
    assert outcome.kind == 'float' and all(c.good for c in outcome.comparisons)
    return path


@pytest.fixture
def exported_before(float_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares tests the export to float32."""

    def to_onnx(detector: ExportedDetector) -> tuple[onnx.ModelProto, list[str]]:
        model = onnx.load(float_file)
        del model.metadata_props[:]
        return model, []

    monkeypatch.setattr(export_module, 'to_onnx', to_onnx)


def test_float_file_of_a_relu_twin(float_file):
    model = tiny_detector(relu_config())
    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)
    with torch.no_grad():
        data = model.data_preprocessor(dict(inputs=[image], data_samples=None))
        scores = model.bbox_head(model.extract_feat(data['inputs']))[0]
    flat = [s.permute(0, 2, 3, 1).reshape(1, -1, 4) for s in scores]
    expected = torch.cat(flat, 1).softmax(-1)[..., :-1]
    found = hoyer_det_runtime.load(float_file).engine(image.numpy()[None, ::-1].copy())
    np.testing.assert_allclose(found['scores'], expected, atol=1e-5)


@pytest.mark.parametrize('heads', ['int8', 'fp32'])
def test_relu_twin_becomes_int8(heads, tmp_path, voc_folder, float_file, exported_before):
    cfg = relu_config()
    cfg.train_dataloader = ConfigDict(
        dataset=dict(type='VOCFormatDataset', data_root=str(voc_folder), pipeline=[])
    )
    model = tiny_detector(cfg)
    quantize = quantizer(training_images(cfg, 4), heads)
    outcome = export(model, cfg, tmp_path / 'int8.onnx', ExportSettings(), quantize=quantize)
    assert outcome.ran == ['onnxruntime']
    assert outcome.kind == 'int8'
    graph = onnx.load(tmp_path / 'int8.onnx').graph
    stored = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    behind = {out: node for node in graph.node for out in node.output}
    convs = [node for node in graph.node if node.op_type == 'Conv']
    sources = [behind.get(conv.input[1]) for conv in convs]
    rounded = [stored[s.input[0]] for s in sources if s and s.op_type == 'DequantizeLinear']
    assert len(rounded) == len(convs) - (6 if heads == 'fp32' else 0)  # 2 read-outs a level
    assert all(weight.dtype == np.int8 and np.abs(weight).max() in (63, 64) for weight in rounded)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE), np.uint8)
    real, whole = (
        hoyer_det_runtime.load(file).engine(images) for file in (float_file, tmp_path / 'int8.onnx')
    )
    assert 0 < np.abs(real['scores'] - whole['scores']).mean() < 0.1
    assert np.corrcoef(real['scores'].ravel(), whole['scores'].ravel())[0, 1] > 0.9


def test_a_failed_int8_export_leaves_nothing(tmp_path, exported_before, monkeypatch):
    cfg = relu_config()

    def full(model: onnx.ModelProto, output: dict) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(export_module, 'add_nms', full)
    with pytest.raises(OSError, match='No space left'):
        export(
            tiny_detector(cfg),
            cfg,
            tmp_path / 'int8.onnx',
            ExportSettings(nms=True, engines=()),
            quantize=lambda path, given: onnx.load(path),
        )
    assert list(tmp_path.iterdir()) == []


def test_float_file_of_a_spiking_network_is_run(tmp_path, exported_before):
    cfg = tiny_config('ssd')
    model = tiny_detector(cfg)
    outcome = export(model, cfg, tmp_path / 'float.onnx', ExportSettings(real=True))
    assert outcome.comparisons == [] and outcome.ran == ['onnxruntime']
    settings = ExportSettings(real=True, engines=('spikes',))
    with pytest.raises(ValueError, match='export: the file: cannot be run by spikes .*no spiking'):
        export(model, cfg, tmp_path / 'other.onnx', settings)
    assert not (tmp_path / 'other.onnx').exists()


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(real=True, weights=3), 'weights=3 has no effect on a file in float32'),
        (dict(real=True, heads='fp32'), 'heads=fp32 has no effect on a file in float32'),
        (dict(weights=3), 'weights=3 has no effect on the int8 file of a ReLU twin'),
        (dict(stem='fp32'), 'stem=fp32 has no effect on the int8 file of a ReLU twin'),
    ],
)
def test_settings_without_effect_are_refused(settings, words, tmp_path):
    cfg = relu_config()
    model = tiny_detector(cfg)
    with pytest.raises(ValueError, match=words):
        export(model, cfg, tmp_path / 'a.onnx', ExportSettings(**settings), quantize=quantizer([]))


def test_calibration_needs_images():
    cfg = tiny_config('ssd')
    with pytest.raises(ValueError, match='0 calibration images; at least 1'):
        training_images(cfg, 0)
    with pytest.raises(ValueError, match='no train_dataloader to take calibration images from'):
        training_images(cfg, 4)
