"""Graphs in forms that ``hoyer-det export`` does not write: run, or left to ONNX Runtime, or refused."""

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from hoyer_det_runtime.engines import open_engine
from hoyer_det_runtime.spikes import SpikeEngine
from onnx import TensorProto, helper
from onnx_layers import Builder, random_network

pytestmark = pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')


def assert_equal(model, images=None):
    """Compare with ONNX Runtime; return the engine."""
    if images is None:
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
        images = np.random.default_rng(1).integers(0, 256, (2, *shape), np.uint8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    expected = session.run(None, {'image': images})
    engine = SpikeEngine(model)
    for _ in range(2):  # a second time in memory that was used
        found = engine(images)
        for output, values in zip(session.get_outputs(), expected, strict=True):
            assert found[output.name].dtype == values.dtype
            np.testing.assert_allclose(
                found[output.name], values, rtol=1e-5, atol=1e-3, err_msg=output.name
            )
    return engine


def integers(net, *shape, largest=15):
    return net.random.integers(-largest, largest + 1, shape).astype(np.int8)


def restored(net, weight, axis=0):
    step = (2.0 ** net.random.integers(-3, 3, len(weight))).astype(np.float32)  # exact sums
    return net.add('DequantizeLinear', net.constant(weight), net.constant(step), axis=axis)


def fire(net, x, level=0.0):
    fired = net.add('GreaterOrEqual', x, net.constant(np.full((1, 1, 1, 1), level, np.float32)))
    value = net.add('Cast', fired, to=TensorProto.UINT8)
    net.outputs.append((value, TensorProto.UINT8))
    return value


def test_what_onnx_runtime_made_is_not_overwritten_before_it_is_read():
    """The second stream comes in a stage that has freed the first by the time it reads the second."""
    net = Builder(seed=1)
    weight = net.random.standard_normal((40, 3, 3, 3)).astype(np.float32)
    streams = [
        net.add('Conv', net.real('image'), net.constant(scale * weight), pads=[1] * 4)
        for scale in (1, 2)
    ]
    x = streams[0]
    for _ in range(2):
        fired = net.add('GreaterOrEqual', x, net.constant(np.zeros((1, 40, 1, 1), np.float32)))
        spikes = net.real(net.add('Cast', fired, to=TensorProto.UINT8))
        x = net.add('Conv', spikes, restored(net, integers(net, 40, 40, 3, 3)), pads=[1] * 4)
    net.output(net.add('Add', x, streams[1]))
    assert_equal(net.model())


def test_outputs_stay_as_they_are_when_the_engine_runs_again():
    net = Builder(seed=1)
    weight = restored(net, integers(net, 1, 40, 3, 3))
    net.output(net.add('Conv', net.real(net.stem(40)), weight))
    engine = SpikeEngine(net.model())
    images = np.random.default_rng(1).integers(0, 256, (2, 1, 3, 12, 12), np.uint8)
    first = engine(images[0])
    kept = {name: values.copy() for name, values in first.items()}
    engine(images[1])
    for name, values in first.items():
        np.testing.assert_array_equal(values, kept[name])


@pytest.mark.parametrize('kernel, left', [(11, False), (12, True), (16, True)])
@pytest.mark.parametrize('largest', [15, 31, 60])
def test_windows_too_large_for_the_lists_are_left(largest, kernel, left):
    net = Builder(seed=1, side=14)
    x = net.stem(20)
    weight = integers(net, 5, 20, kernel, kernel, largest=largest)
    weight[net.random.random(weight.shape) > 0.15] = 0
    weight[0, 0, 0, 0] = largest
    level = net.random.integers(-500, 500, 5)
    net.spikes(x, weight, level, pads=[kernel // 2] * 4)
    sums = net.add('Conv', net.real(x), restored(net, weight), pads=[kernel // 2] * 4)
    net.output(sums)
    engine = assert_equal(net.model())
    assert ('QLinearConv' in engine.left) == left and ('Conv' in engine.left) == left


def test_weights_of_minus_128():
    net = Builder(seed=1)
    weight = integers(net, 40, 20, 3, 3)
    weight[::2, 0, 0, 0] = -128
    net.spikes(net.stem(20), weight, net.random.integers(-90, 50, 40), pads=[1] * 4)
    assert assert_equal(net.model()).left == []


@pytest.mark.parametrize('kind', [np.uint8, np.int16, np.int32])
def test_restored_weights_of_other_types_are_left(kind):
    net = Builder(seed=1)
    weight = net.random.integers(0, 50, (20, 40, 3, 3)).astype(kind)
    net.output(net.add('Conv', net.real(net.stem(40)), restored(net, weight)))
    model = net.model()
    model.opset_import[0].version, model.ir_version = 21, 10
    assert 'Conv' in assert_equal(model).left


def test_restored_weights_are_shared_with_a_convolution_that_is_left():
    net = Builder(seed=1)
    spikes, weight = net.real(net.stem(40)), restored(net, integers(net, 20, 40, 3, 3))
    net.output(net.add('Conv', spikes, weight))
    halves = net.add('Mul', spikes, net.constant(np.float32(0.5)))
    net.output(net.add('Conv', halves, weight))
    assert assert_equal(net.model()).left.count('Conv') == 1


@pytest.mark.parametrize('real', [False, True])
def test_weights_of_another_size_than_the_window_are_refused(real):
    net = Builder(seed=1)
    x, weight = net.stem(40), integers(net, 33, 40, 3, 3)
    window = dict(kernel_shape=[5, 5], pads=[3] * 4)
    if real:
        net.output(net.add('Conv', net.real(x), restored(net, weight), **window))
    else:
        net.spikes(x, weight, np.zeros(33), **window)
    with pytest.raises(ValueError, match='kernel_shape'):
        SpikeEngine(net.model())(np.zeros((1, 3, 12, 12), np.uint8))


def test_images_of_other_types_are_no_bytes():
    net = Builder(seed=1)
    net.image.type.tensor_type.elem_type = TensorProto.DOUBLE
    x = net.add('Cast', 'image', to=TensorProto.FLOAT)
    fire(net, net.add('Conv', x, restored(net, integers(net, 20, 3, 3, 3))))
    images = np.random.default_rng(1).uniform(0, 255, (2, 3, 12, 12))
    assert 'Conv' in assert_equal(net.model(), images).left


def test_images_as_half_precision_are_left():
    net = Builder(seed=1)
    net.stem(20)
    step = net.constant(np.full(20, 0.5, np.float16))
    weight = net.constant(integers(net, 20, 3, 3, 3))
    weight = net.add('DequantizeLinear', weight, step, axis=0)
    x = net.add('Cast', 'image', to=TensorProto.FLOAT16)
    net.outputs.append((net.add('Conv', x, weight), TensorProto.FLOAT16))
    model = net.model()
    model.opset_import[0].version = 19
    assert 'Conv' in assert_equal(model).left


def test_neurons_of_doubles_are_left():
    net = Builder(seed=1)
    net.stem(20)
    third = net.constant(np.float64(1 / 3))
    x = net.add('Mul', net.add('Cast', 'image', to=TensorProto.DOUBLE), third)
    fired = net.add('GreaterOrEqual', x, net.constant(np.float64(100 / 3 + 1e-12)))
    net.outputs.append((net.add('Cast', fired, to=TensorProto.UINT8), TensorProto.UINT8))
    assert 'GreaterOrEqual' in assert_equal(net.model()).left


@pytest.mark.parametrize('scales', [(1, 1, 2.3, 2.3), (1, 2, 2, 2)], ids=['fraction', 'channels'])
def test_resizing_by_other_than_whole_factors_is_left(scales):
    net = Builder(seed=5, side=3)
    way = dict(coordinate_transformation_mode='asymmetric', nearest_mode='floor')
    scales = net.constant(np.array(scales, np.float32))
    value = net.add('Resize', net.stem(40), '', scales, **way)
    net.outputs.append((value, TensorProto.UINT8))
    assert assert_equal(net.model()).left == ['Resize']


@pytest.mark.parametrize(
    'window, left',
    [
        (dict(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), False),
        (dict(kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1), False),
        (dict(kernel_shape=[2, 3], strides=[2, 3], pads=[1, 0, 0, 1], ceil_mode=1), False),
        (dict(kernel_shape=[3, 2], strides=[2, 1], pads=[0, 1, 2, 0]), False),
        (dict(kernel_shape=[2, 2], strides=[2, 2], auto_pad='SAME_LOWER'), True),
        (dict(kernel_shape=[2, 2], dilations=[2, 2]), True),
    ],
)
def test_windows_of_poolings(window, left):
    net = Builder(seed=2, side=7)
    x = net.stem(40)
    net.outputs.append((net.add('MaxPool', x, **window), TensorProto.UINT8))
    flip = net.random.integers(0, 2, 20)
    net.spikes(x, integers(net, 20, 40, 3, 3), np.zeros(20), dict(window), flip, pads=[1] * 4)
    numbers = net.add('Conv', net.real(x), net.constant(-np.ones((4, 40, 1, 1), np.float32)))
    net.output(net.add('MaxPool', numbers, **window))
    assert assert_equal(net.model()).left.count('MaxPool') == 3 * left


def test_poolings_whose_last_window_is_outside_are_refused():
    """ONNX counts these windows, ONNX Runtime and PyTorch do not."""
    net = Builder(seed=2, side=7)
    window = dict(kernel_shape=[2, 2], strides=[2, 2], pads=[1] * 4, ceil_mode=1)
    net.outputs.append((net.add('MaxPool', net.stem(40), **window), TensorProto.UINT8))
    with pytest.raises(ValueError, match=r'declared as \(40, 5, 5\), but its layer makes \(40, 4'):
        SpikeEngine(net.model())


def test_constants_of_all_kinds():
    net = Builder(seed=1)
    x = net.stem(20)
    line = net.add('Gather', x, net.add('Constant', value_int=1), axis=2)
    line = net.add('Unsqueeze', line, net.add('Constant', value_ints=[2]))
    net.outputs.append((line, TensorProto.UINT8))
    net.output(net.constant(np.ones((1, 2, 3, 4), np.float32)))
    assert_equal(net.model())


def test_a_number_goes_from_one_part_of_onnx_runtime_to_another():
    net = Builder(seed=1)
    mean = net.add('ReduceMean', net.real('image'), keepdims=0)
    lines = net.add('Shape', net.add('NonZero', net.real('image')))  # of any length
    x = net.add('Conv', net.real(net.stem(20)), restored(net, integers(net, 4, 20, 1, 1)))
    x = fire(net, net.add('Mul', x, mean))
    x = net.add('Conv', net.real(x), restored(net, integers(net, 4, 4, 1, 1)))
    length = net.add('ReduceMax', net.add('Cast', lines, to=TensorProto.FLOAT), keepdims=0)
    net.output(net.add('Mul', net.add('Add', x, mean), length))
    assert_equal(net.model())


def test_a_constant_is_no_stream():
    net = Builder(seed=1)
    net.image.type.tensor_type.shape.dim[0].dim_value = 1
    x = net.add('Conv', net.real(net.stem(20)), restored(net, integers(net, 4, 20, 1, 1)))
    stream = net.random.standard_normal((1, 4, 12, 12)).astype(np.float32)
    net.output(net.add('Add', x, net.constant(stream, 'stream')))
    model = net.model()
    declared = helper.make_tensor_value_info('stream', TensorProto.FLOAT, stream.shape)
    model.graph.input.append(declared)
    assert_equal(model, np.ones((1, 3, 12, 12), np.uint8))


@pytest.mark.parametrize('size', [1, 900])
def test_a_bias_of_another_size_is_refused(size):
    net = Builder(seed=1)
    bias = net.constant(np.ones(size, np.float32))
    weight = restored(net, integers(net, 4, 40, 1, 1))
    net.output(net.add('Conv', net.real(net.stem(40)), weight, bias))
    with pytest.raises(ValueError, match='bias'):
        SpikeEngine(net.model())(np.zeros((1, 3, 12, 12), np.uint8))


def test_a_second_input_is_refused():
    net = Builder(seed=1)
    net.stem(20)
    model = net.model()
    model.graph.input.append(helper.make_tensor_value_info('other', TensorProto.FLOAT, [1]))
    with pytest.raises(ValueError, match='has 2 inputs; it must have one'):
        SpikeEngine(model)


@pytest.mark.parametrize(
    'images',
    [np.zeros((1, 3, 12, 12), np.float32), np.zeros((1, 1, 12, 12), np.uint8)],
    ids=['type', 'shape'],
)
def test_images_that_do_not_fit_are_refused(images):
    net = Builder(seed=1)
    net.stem(20)
    with pytest.raises(ValueError, match=r'takes uint8 \(1, 3, 12, 12\) here, not'):
        SpikeEngine(net.model())(images)


def test_a_mean_over_images_is_refused():
    net = Builder(seed=1)
    mean = net.add('ReduceMean', net.real('image'), net.constant(np.array([0])))
    fire(net, mean, 99)
    with pytest.raises(ValueError, match=r'\(2, 12, 12, 3\) here, not float32 \(1, 12, 12, 3\)'):
        SpikeEngine(net.model())(np.zeros((2, 3, 12, 12), np.uint8))


@pytest.mark.parametrize('name', ['spikes', 'openvino'])
def test_threads_that_share_an_engine_take_turns(name, tmp_path):
    model = random_network(5)
    onnx.save(model, tmp_path / 'm.onnx')
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    images = np.random.default_rng(1).integers(0, 256, (4, 2, *shape), np.uint8)
    engine = open_engine(name, tmp_path / 'm.onnx', 1)
    expected = [engine(some) for some in images]
    with ThreadPoolExecutor(4) as pool:
        for found, values in zip(pool.map(engine, [*images] * 15), expected * 15, strict=True):
            for name in values:
                np.testing.assert_array_equal(found[name], values[name])


def test_an_engine_whose_error_says_nothing(monkeypatch):
    def fail(path):
        raise RuntimeError

    monkeypatch.setattr('hoyer_det_runtime.engines.OnnxRuntime', fail)
    with pytest.raises(ValueError, match=r'^m.onnx: cannot be run by onnxruntime \(RuntimeError\)'):
        open_engine('onnxruntime', 'm.onnx')


def test_the_reason_of_openvino_is_told(monkeypatch):
    def fail(path):
        raise RuntimeError(
            'Exception from src/core.cpp:84:\nCheck failed at a.hpp:3:\nKernel is larger\n'
        )

    monkeypatch.setattr('hoyer_det_runtime.engines.OnnxRuntime', fail)
    with pytest.raises(ValueError, match=r'cannot be run by onnxruntime \(Kernel is larger\)'):
        open_engine('onnxruntime', 'm.onnx')


def test_a_forked_process_computes_with_one_thread():
    """Threads of OpenMP do not survive a fork: the child waited for them for ever."""
    model = random_network(5)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    images = np.random.default_rng(1).integers(0, 256, (2, *shape), np.uint8)
    engine = SpikeEngine(model, threads=2)
    expected = engine(images)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for values in engine(images), SpikeEngine(model, threads=2)(images):
                for name in expected:
                    np.testing.assert_array_equal(values[name], expected[name])
            code = 0
        finally:
            os._exit(code)  # not on with the tests
    for _ in range(3000):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail('the child hangs')
    assert os.waitstatus_to_exitcode(status) == 0
