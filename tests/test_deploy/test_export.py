"""Exported files: the spikes of every layer, and the detections of MMDetection's own loop."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import hoyer_det_runtime
import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from hoyer_det.deploy import FiringLevel, fold
from hoyer_det.deploy import export as export_module
from hoyer_det.deploy.checking import check_images
from hoyer_det.deploy.export import Exported, ExportSettings, export
from hoyer_det.deploy.graph import to_onnx
from hoyer_det.deploy.graph_nms import add_nms
from hoyer_det.spiking import HoyerSpike
from hoyer_det_runtime.nms import select
from mmdet.registry import MODELS
from mmengine.dataset import Compose, pseudo_collate
from tiny_detectors import CLASSES, MODELS_BY_NAME, SIDE, tiny_config, tiny_detector

ENGINES = ('onnxruntime', 'openvino', 'spikes')


@pytest.fixture(scope='module')
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)


@pytest.fixture(scope='module')
def ssd(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Exported]:
    """A detector, and its export with weights of four bits and NMS in the graph."""
    cfg = tiny_config('ssd')
    model, path = tiny_detector(cfg), tmp_path_factory.mktemp('export') / 'ssd.onnx'
    outcome = export(model, cfg, path, ExportSettings(weights=4, nms=True, engines=ENGINES))
    assert outcome.ran == list(ENGINES)
    return model, outcome


@pytest.fixture
def ssd_file(ssd: tuple[torch.nn.Module, Exported]) -> Path:
    return ssd[1].path


@pytest.mark.parametrize('name', MODELS_BY_NAME)
def test_spikes_are_equal_in_all_engines_and_detections_are_mmdetections(
    name, tmp_path, picture, request
):
    cfg = tiny_config(name, keep_ratio=name == 'yolo')
    if name == 'ssd':
        bits, (model, outcome) = 4, request.getfixturevalue('ssd')
    else:
        bits, model = None, tiny_detector(cfg)
        outcome = export(model, cfg, tmp_path / 'm.onnx', ExportSettings(engines=ENGINES))
    assert [comparison.engine for comparison in outcome.comparisons] == list(ENGINES)
    for comparison in outcome.comparisons:
        assert comparison.good and comparison.rounded == 0 and comparison.spikes > 1000
        assert 0.05 < np.mean(list(comparison.rates.values())) < 0.95
    graph = onnx.load(outcome.path).graph
    stored = {tensor.name for tensor in graph.initializer}
    assert not any(n.op_type == 'Conv' and n.input[1] in stored for n in graph.node)  # but int8
    # Detections: MMDetection's pipeline and head on the folded network, the runtime on the file.
    folded = fold(model, bits, size=(SIDE, SIDE))
    inverted = [m.invert for m in folded.modules() if isinstance(m, FiringLevel) and m.integer]
    assert name not in ('ssd', 'yolo') or torch.cat(inverted).any()
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    data = pseudo_collate([pipeline(dict(img_path=str(tmp_path / 'a.png'), img_id=0))])
    with torch.no_grad():
        expected = folded.test_step(data)[0].pred_instances
    if name == 'yolo':  # whose boxes MMDetection leaves where they are, also beside the image
        corners = expected.bboxes.split(2, 1)
        expected = expected[((corners[1] > 0) & (corners[0] < torch.tensor([80, 48]))).all(1)]
    found = hoyer_det_runtime.load(outcome.path).predict(tmp_path / 'a.png', 0.0)[0]
    assert len(expected) > 5 and found.classes == CLASSES and found.size == (48, 80)
    assert found.source == str(tmp_path / 'a.png')
    # Thresholds hold before the product in MMDetection.
    with_factor = name in ('yolo', 'fcos', 'atss')
    assert name != 'atss' or found.scores.min() < 0.1 and len(found) >= len(expected)
    number = 5 if with_factor else len(expected)
    assert with_factor or len(found) == number
    np.testing.assert_allclose(found.scores[:number], expected.scores[:number], atol=1e-5)
    # Boxes of equal scores may be in another order, and either may be the last one that is kept.
    ours = np.column_stack([found.boxes, found.labels])
    number = int((expected.scores[:number] > expected.scores[-1] + 1e-5).sum())
    assert number >= 4
    for box, label in zip(expected.bboxes[:number], expected.labels[:number], strict=True):
        distance = np.abs(ours - np.array([*box.tolist(), int(label)])).max(1)
        assert distance.min() < 1e-2


def test_weights_of_four_bits_and_the_batch_is_free(ssd_file):
    model = onnx.load(ssd_file)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convs = [node for node in model.graph.node if node.op_type == 'QLinearConv']
    largest = [np.abs(stored[node.input[3]].astype(int)).max() for node in convs]
    assert 8 < largest[0] <= 64 and max(largest[1:]) == 7  # the stem keeps more
    engine = hoyer_det_runtime.load(ssd_file).engine
    images = np.random.default_rng(1).integers(0, 255, (3, 3, SIDE, SIDE), np.uint8)
    together = engine(images)['scores']
    alone = [engine(image[None])['scores'][0] for image in images]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_nms_in_the_graph_finds_what_the_runtime_finds(ssd_file, picture):
    model = hoyer_det_runtime.load(ssd_file)
    prepared = cv2.resize(picture, (SIDE, SIDE))[..., ::-1].transpose(2, 0, 1)
    rows = model.engine(np.ascontiguousarray(prepared)[None])['detections']
    found = model.predict(picture, 0.0)[0]
    best = rows[rows[:, 2].argsort()[::-1]][: len(found)]
    np.testing.assert_allclose(best[:, 2], found.scores, atol=1e-6)


@pytest.mark.parametrize('agnostic', [True, False])
def test_nms_in_the_graph_is_that_of_the_runtime(agnostic):
    """Beside one another the boxes of two classes, and each prior has scores of both."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 40, (2, 30, 2))
    boxes = np.concatenate([corners, corners + random.uniform(10, 20, (2, 30, 2))], 2)
    feed = dict(boxes=boxes.astype(np.float32), scores=random.random((2, 30, 2), np.float32))
    shapes = {name: ('N', *values.shape[1:]) for name, values in feed.items()}
    inputs, outputs = (
        [onnx.helper.make_tensor_value_info(f'{n}{end}', 1, s) for n, s in shapes.items()]
        for end in ('_in', '')
    )
    nodes = [onnx.helper.make_node('Identity', [f'{name}_in'], [name]) for name in feed]
    graph = onnx.helper.make_graph(nodes, 'boxes', inputs, outputs)
    opset = [onnx.helper.make_opsetid('', 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    spec = dict(score_thr=0.1, nms_iou=0.3, nms_class_agnostic=agnostic, nms_pre=-1, levels=[30])
    spec.update(max_per_img=100, min_bbox_size=0, clip=True)
    add_nms(model, spec)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (rows,) = session.run(['detections'], {f'{name}_in': values for name, values in feed.items()})
    for image in range(2):
        found = select(feed['boxes'][image], feed['scores'][image], spec, (1, 1), (100, 100))
        ours = rows[rows[:, 0] == image]
        ours = ours[ours[:, 2].argsort()[::-1]]
        np.testing.assert_allclose(ours[:, 3:], found[0])
        np.testing.assert_allclose(ours[:, 2], found[1])
        np.testing.assert_array_equal(ours[:, 1], found[2])
    with pytest.raises(ValueError, match='min_bbox_size=5, which NMS in the graph does not know'):
        add_nms(model, {**spec, 'min_bbox_size': 5.0})


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch, ssd_file):
    cfg = tiny_config('ssd')
    model = onnx.load(ssd_file)
    bias = next(t for t in model.graph.initializer if t.name.endswith('1.0.conv.weight.bias'))
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 2
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    monkeypatch.setattr(export_module, 'to_onnx', lambda detector: (model, []))
    with pytest.raises(ValueError, match=r'not written.*DIFFERENT in 1 layers .*stages.1.0.act'):
        export(tiny_detector(cfg), cfg, tmp_path / 'm.onnx', ExportSettings(weights=4))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_an_engine_cannot_run_is_not_written(tmp_path, monkeypatch, ssd_file):
    cfg = tiny_config('ssd')
    model = onnx.load(ssd_file)

    def add_nms(model, output):
        model.graph.node.append(onnx.helper.make_node('Unknown', ['boxes'], ['detections']))

    monkeypatch.setattr(export_module, 'to_onnx', lambda detector: (model, []))
    monkeypatch.setattr(export_module, 'add_nms', add_nms)
    settings = ExportSettings(weights=4, nms=True)
    with pytest.raises(ValueError, match='export: the file: cannot be run by onnxruntime'):
        export(tiny_detector(cfg), cfg, tmp_path / 'm.onnx', settings)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_for_one_size_of_batches_is_refused(monkeypatch):
    """PyTorch's exporter writes one where a layer computes with the number of images, as LIF twins do."""
    traced = []

    def exporter(detector, arguments, **options):
        traced.append(arguments[0])
        image, boxes = (
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, arguments[0].shape)
            for name in ('image', 'boxes')
        )
        node = onnx.helper.make_node('Identity', ['image'], ['boxes'])
        graph = onnx.helper.make_graph([node], 'frozen', [image], [boxes])
        return SimpleNamespace(model=onnx_ir.from_proto(onnx.helper.make_model(graph)))

    monkeypatch.setattr(torch.onnx, 'export', exporter)
    detector = torch.nn.Module()
    detector.size = (4, 4)
    with pytest.raises(ValueError, match='export: the graph would take one size of batches alone'):
        to_onnx(detector)
    # What is frozen inside the graph is found by the check.
    assert len(traced[0]) != len(check_images(detector.size))


@MODELS.register_module()
class BackboneOfMeans(torch.nn.Module):
    """Convolutions that read means of spikes, spikes padded by reflection, and pixels beside them."""

    def __init__(self) -> None:
        super().__init__()
        pools = torch.nn.AvgPool2d(2), torch.nn.MaxPool2d(2)
        self.blocks = torch.nn.Sequential()
        for channels, pool, mode in zip((3, 8), pools, ('zeros', 'reflect'), strict=True):
            conv = torch.nn.Conv2d(channels, 8, 3, padding=1, padding_mode=mode)
            act = HoyerSpike(8, extremum='channel')
            self.blocks.append(torch.nn.Sequential(conv, torch.nn.BatchNorm2d(8), act, pool))
        self.last = copy.deepcopy(self.blocks[1])
        self.last[0] = torch.nn.Conv2d(11, 8, 3, padding=1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pool, resize = torch.nn.functional.avg_pool2d, torch.nn.functional.interpolate
        spikes = resize(self.blocks(image), scale_factor=2, mode='bilinear')
        out = self.last(torch.cat([spikes, pool(image, 2)], 1))
        return (torch.nn.functional.max_pool2d(out, 4),)


def test_what_is_between_spikes_is_computed_as_real_values(tmp_path):
    cfg = tiny_config('ssd')
    cfg.model.backbone, cfg.model.neck = dict(type='BackboneOfMeans'), None
    head = cfg.model.bbox_head
    head.in_channels = (8,)
    for key in ('min_sizes', 'max_sizes', 'strides', 'ratios'):
        head.anchor_generator[key] = head.anchor_generator[key][:1]
    model = tiny_detector(cfg)
    outcome = export(model, cfg, tmp_path / 'm.onnx', ExportSettings(engines=ENGINES[:2]))
    assert all(comparison.good for comparison in outcome.comparisons)
    assert {layer.kind for layer in outcome.layers} == {'rounded'}


def test_head_that_decodes_in_its_own_way_is_named(tmp_path):
    cfg = tiny_config('fcos')
    cfg.model.bbox_head = dict(
        type='GFLHead',
        num_classes=3,
        in_channels=8,
        stacked_convs=1,
        feat_channels=8,
        norm_cfg=dict(type='BN'),
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=8,
            scales_per_octave=1,
            strides=[8] * 4,
        ),
    )
    with pytest.raises(ValueError, match='GFLHead cannot be exported; known are'):
        export(tiny_detector(cfg), cfg, tmp_path / 'm.onnx')


# ------------------------------------------------------------------------------------------------
# The runtime
# ------------------------------------------------------------------------------------------------


def test_runtime_needs_neither_torch_nor_mmdetection(ssd_file, tmp_path, picture):
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    code = (
        'import sys; sys.modules.update(dict.fromkeys(("torch", "mmdet", "mmcv", "mmengine")));'
        'import hoyer_det_runtime as r; m = r.load(sys.argv[1], threads=1);'
        'found, = m.predict(sys.argv[2], 0.0); print(len(found));'
        'assert m.draw(sys.argv[2], found).shape[2] == 3'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(ssd_file), str(tmp_path / 'a.png')],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(hoyer_det_runtime.load(ssd_file).predict(picture, 0.0)[0]) > 0


def described(path, **changes) -> bytes:
    model = onnx.load(path)
    content = json.loads(model.metadata_props[0].value)
    content.update(changes)
    model.metadata_props[0].value = json.dumps(content)
    return model.SerializeToString()


def foreign() -> bytes:
    x = onnx.helper.make_tensor_value_info('x', 1, [1])
    y = onnx.helper.make_tensor_value_info('y', 1, [1])
    node = onnx.helper.make_node('Relu', ['x'], ['y'])
    return onnx.helper.make_model(onnx.helper.make_graph([node], 'g', [x], [y])).SerializeToString()


@pytest.mark.parametrize(
    'content, words',
    [
        (lambda file: file.read_bytes()[:20000], 'is no ONNX file, or is truncated'),
        (lambda file: b'', 'is no ONNX file, or is truncated'),
        (lambda file: b'PK\x03\x04 something else', 'is no ONNX file, or is truncated'),
        (lambda file: foreign(), 'has no description by hoyer_det'),
        (lambda file: described(file, format=0), 'is of format 0, this version reads 1'),
        (lambda file: described(file, output=None), 'its description has no output'),
    ],
    ids=['truncated', 'empty', 'zip', 'foreign', 'older', 'incomplete'],
)
def test_wrong_files_are_said_in_one_line(ssd_file, tmp_path, content, words):
    path = tmp_path / 'm.onnx'
    path.write_bytes(content(ssd_file))
    with pytest.raises(ValueError, match=words) as error:
        hoyer_det_runtime.load(path)
    assert '\n' not in str(error.value) and str(path) in str(error.value)


def test_engines_that_are_not_there(ssd_file, monkeypatch):
    with pytest.raises(ValueError, match='no such engine; known are onnxruntime'):
        hoyer_det_runtime.load(ssd_file, 'tensorrt')
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(ValueError, match='is not installed here .* pip install openvino'):
        hoyer_det_runtime.load(ssd_file, 'openvino')
    with pytest.raises(FileNotFoundError, match='no such file'):
        hoyer_det_runtime.load(copy.copy(ssd_file).with_name('b.onnx'))
