"""Convolutions that read the same spikes, put together."""

import shutil

import numpy as np
import onnxruntime
import pytest
from hoyer_det_runtime.spikes import SpikeEngine
from hoyer_det_runtime.spikes.layers import RealConv
from hoyer_det_runtime.spikes.merging import merge_readouts
from onnx import TensorProto
from onnx_layers import Builder


def readouts(*layers, seed=0):
    """Read-outs of one layer of spikes: (channels, kernel, bias or not), each with channels last."""
    net = Builder(seed=seed)
    spikes = net.real(net.stem(70))
    for channels, kernel, bias in layers:
        weight = net.random.integers(-31, 32, (channels, 70, kernel, kernel)).astype(np.int8)
        step = net.random.uniform(0.1, 1, channels).astype(np.float32)
        restored = net.add('DequantizeLinear', net.constant(weight), net.constant(step), axis=0)
        added = [net.constant(step * 3)] if bias else []
        value = net.add('Conv', spikes, restored, *added, pads=[kernel // 2] * 4)
        net.output(net.add('Transpose', value, perm=[0, 2, 3, 1]))
    return net


def outputs(model, images):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    return session.run(None, {'image': images})


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 12, 12), np.uint8)


@pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')
@pytest.mark.parametrize(
    'layers, left',
    [
        ([(84, 3, True), (16, 3, False)], 1),
        ([(84, 3, True), (16, 1, True), (5, 3, True), (1, 1, False)], 2),
        ([(20, 3, True), (20, 1, True)], 2),
    ],
)
def test_merged_convolutions_compute_the_same(layers, left):
    model = readouts(*layers).model()
    expected = outputs(model, IMAGES)
    merged = merge_readouts(model)
    assert sum(node.op_type == 'Conv' for node in merged.graph.node) == left
    for found, values in zip(outputs(merged, IMAGES), expected, strict=True):
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-3)
    engine = SpikeEngine(model)
    assert sum(isinstance(layer, RealConv) for layer in engine.layers) == left
    for found, values in zip(engine(IMAGES).values(), expected, strict=True):
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-3)


def test_what_others_read_is_left_and_the_model_is_not_changed():
    net = readouts((4, 3, True), (6, 3, True))
    conv = next(node for node in net.nodes if node.op_type == 'Conv')
    net.outputs.append((conv.output[0], TensorProto.FLOAT))
    model = net.model()
    assert merge_readouts(model) is model
    model = readouts((4, 3, True), (6, 3, True)).model()
    before = model.SerializeToString()
    assert merge_readouts(model) is not model and model.SerializeToString() == before


def odd_readouts(change):
    """Two read-outs that differ from those of an export."""
    net = Builder(seed=3)
    spikes = net.real(net.stem(40))
    for index in range(2):
        kernel = 1 + 2 * index if change == 'kernels' else 3
        attributes = dict(pads=[1] * 4, **dict(group=4) if change == 'groups' else {})
        shape = 20, 10 if change == 'groups' else 40, kernel, kernel
        kind = np.uint8 if change == 'types' and index else np.int8
        weight = net.constant(net.random.integers(0, 32, shape).astype(kind))
        if change == 'defaults':
            weight = net.add('DequantizeLinear', weight, net.constant(np.float32(0.5)))
        else:
            step = net.constant(net.random.uniform(0.1, 1, 20).astype(np.float32))
            weight = net.add('DequantizeLinear', weight, step, axis=0)
        value = net.add('Conv', spikes, weight, **attributes)
        last = {} if change == 'defaults' else dict(perm=[0, 2, 3, 1])
        value = net.add('Transpose', value, **last)
        net.output(net.add('Relu', value) if change == 'readers between' else value)
    return net.model()


@pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')
@pytest.mark.parametrize(
    'change, left',
    [('groups', 2), ('kernels', 2), ('types', 2), ('defaults', 2), ('readers between', 1)],
)
def test_other_readouts_compute_the_same(change, left):
    model = odd_readouts(change)
    merged = merge_readouts(model)
    assert sum(node.op_type == 'Conv' for node in merged.graph.node) == left
    expected = outputs(model, IMAGES)
    for found, values in zip(SpikeEngine(model)(IMAGES).values(), expected, strict=True):
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-3)
