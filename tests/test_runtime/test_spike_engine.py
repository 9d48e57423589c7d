"""The spike-driven engine against ONNX Runtime, which knows nothing of spikes."""

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from hoyer_det_runtime.engines import open_engine
from hoyer_det_runtime.spikes import SpikeEngine, native
from instructions import PATHS
from onnx import TensorProto, helper
from onnx_layers import Builder, random_network

pytestmark = pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')


def reference(model, images):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {'image': images}), strict=True))


def assert_equal(model, batch=2, threads=1, instructions='native', rates=None):
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    images = np.random.default_rng(1).integers(0, 256, (batch, *shape), np.uint8)
    engine = SpikeEngine(model, threads, keep_spikes=True, instructions=instructions)
    expected = reference(model, images)
    for _ in range(2):  # a second time in memory that was used
        found = engine(images)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    return engine, expected


@pytest.mark.parametrize('instructions', PATHS)
@pytest.mark.parametrize('seed', range(12))
def test_spikes_of_random_networks_are_equal(seed, instructions):
    assert_equal(random_network(seed), 1 + seed % 3, 1 + seed % 2, instructions)


@pytest.mark.parametrize('instructions', PATHS)
@pytest.mark.parametrize('largest', [15, 31, 127])
@pytest.mark.parametrize('level, rate', [(-40000, 1), (40000, 0)])
def test_every_input_active_and_none(level, rate, largest, instructions):
    net, channels = Builder(seed=2), 28 if largest == 127 else 70
    weight = np.ones((channels, 3, 3, 3), np.int8)
    x = net.spikes('image', weight, np.full(channels, level * 1000), pads=[1] * 4)
    weight = net.random.integers(-largest, largest + 1, (65, channels, 3, 3)).astype(np.int8)
    weight[0], weight[1, :25] = largest, -largest  # the largest sums there are
    sums = weight.astype(int).sum((1, 2, 3))
    level = np.where(np.arange(65) % 2, sums, sums + 1)  # reached exactly, or missed by one
    net.spikes(x, weight, level, pads=[1] * 4)
    _, expected = assert_equal(net.model(), instructions=instructions)
    assert next(iter(expected.values())).mean() == rate


def test_levels_that_always_and_never_fire():
    net = Builder(seed=3)
    x = net.stem()
    weight = net.random.integers(-9, 10, (6, 40, 3, 3)).astype(np.int8)
    level = [-40000, 40000, -32768, 32767, 32768, 0]
    net.spikes(x, weight, level, pads=[1] * 4)
    pool = dict(kernel_shape=[3, 3], pads=[1] * 4)
    net.spikes(x, weight, level, pool, [1, 1, 0, 0, 1, 1], pads=[1] * 4)
    assert_equal(net.model())


def test_sums_that_leave_int16_are_refused():
    net = Builder(seed=4)
    x = net.stem(100)
    net.spikes(x, np.full((1, 100, 3, 3), 40, np.int8), [5], pads=[1] * 4)  # up to 36000
    with pytest.raises(ValueError, match='may leave int16; export the model again'):
        SpikeEngine(net.model())(np.zeros((1, 3, 12, 12), np.uint8))


def test_joined_repeated_and_pooled_spikes():
    net = Builder(seed=5)
    x = net.stem(40)
    small = net.add('MaxPool', x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    way = dict(coordinate_transformation_mode='asymmetric', nearest_mode='floor')
    large = net.add('Resize', small, '', scales, **way)
    joined = net.add('Concat', large, x, large, axis=1)
    net.outputs.append((joined, TensorProto.UINT8))
    weight = net.random.integers(-15, 16, (33, 120, 1, 1)).astype(np.int8)
    net.spikes(joined, weight, net.random.integers(-50, 50, 33))
    engine, _ = assert_equal(net.model())
    assert 'Concat' not in engine.left and 'Resize' not in engine.left


@pytest.mark.parametrize('way, rounding', [('half_pixel', 'floor'), ('asymmetric', 'ceil')])
def test_other_ways_of_repeating_are_left_to_onnx_runtime(way, rounding):
    net = Builder(seed=6)
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    attributes = dict(coordinate_transformation_mode=way, nearest_mode=rounding)
    value = net.add('Resize', net.stem(20), '', scales, **attributes)
    net.outputs.append((value, TensorProto.UINT8))
    engine, _ = assert_equal(net.model())
    assert engine.left == ['Resize']


def residual_network(weight_steps):
    """A convolution of the image in float, and a stream that two convolutions of spikes add to."""
    net = Builder(seed=7)
    weight = net.random.standard_normal((48, 3, 3, 3)).astype(np.float32)
    stream = net.add('Conv', net.real('image'), net.constant(weight), pads=[1] * 4)
    for _ in range(2):
        level = net.random.uniform(-300, 300, (1, 48, 1, 1)).astype(np.float32)
        fired = net.add('GreaterOrEqual', stream, net.constant(level))
        spikes = net.add('Cast', fired, to=TensorProto.UINT8)
        net.outputs.append((spikes, TensorProto.UINT8))
        integers = net.random.integers(-31, 32, (48, 48, 3, 3)).astype(np.int8)
        if weight_steps:
            steps = 2.0 ** net.random.integers(-3, 3, 48)
            steps = net.constant(steps.astype(np.float32))
            weight = net.add('DequantizeLinear', net.constant(integers), steps, axis=0)
        else:
            weight = net.constant(integers.astype(np.float32) / 8)
        bias = net.constant(net.random.integers(-9, 9, 48).astype(np.float32))
        sums = net.add('Conv', net.real(spikes), weight, bias, pads=[1] * 4)
        stream = net.add('Add', sums, stream)
    net.output(stream)
    net.output(net.add('Transpose', stream, perm=[0, 2, 3, 1]))
    return net.model()


@pytest.mark.parametrize('weight_steps', [True, False], ids=['int8', 'float'])
@pytest.mark.parametrize('instructions', PATHS)
def test_a_residual_stream(instructions, weight_steps):
    model = residual_network(weight_steps)
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 12, 12), np.uint8)
    engine = SpikeEngine(model, keep_spikes=True, instructions=instructions)
    found, expected = engine(images), reference(model, images)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-3, err_msg=name)
        if values.dtype == np.uint8:
            np.testing.assert_array_equal(found[name], values)
    assert engine.left == ['Cast', 'Conv', 'Transpose']  # the stem, and what comes out


@pytest.mark.parametrize('size, left', [(4, False), (3, True)])
def test_means_of_channel_groups(size, left):
    net = Builder(seed=9)
    weight = net.random.integers(-20, 21, (24, 40, 3, 3)).astype(np.float32)
    wide = net.add('Conv', net.real(net.stem(40)), net.constant(weight), pads=[1] * 4)
    groups = net.add('Reshape', wide, net.constant(np.array([-1, 24 // size, size, 12, 12])))
    mean = net.add('ReduceMean', groups, net.constant(np.array([2])), keepdims=0)
    level = net.constant(np.full((1, 24 // size, 1, 1), 10, np.float32))
    fired = net.add('Cast', net.add('GreaterOrEqual', mean, level), to=TensorProto.UINT8)
    net.outputs += [(mean, TensorProto.FLOAT), (fired, TensorProto.UINT8)]
    engine, _ = assert_equal(net.model())
    assert ('ReduceMean' in engine.left) == left


@pytest.mark.parametrize('cache', [1 << 12, 1 << 17])
def test_blocks_for_other_caches_change_nothing(cache, monkeypatch):
    monkeypatch.setattr(native, 'first_cache_bytes', lambda: cache)
    assert_equal(random_network(5))


def test_times_of_all_steps():
    net = random_network(3)
    engine = SpikeEngine(net)
    images = np.zeros([1, *engine.shape('image')[1:]], np.uint8)
    names = [name for name, seconds in engine.timed(images) if seconds >= 0]
    layers = [layer.output for layer in engine.layers]
    assert [name for name in names if name in layers] == layers
    assert names[0] == 'inputs'


def test_memory_is_used_again_and_kept_where_spikes_are_wanted():
    model = random_network(3)
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 12, 12), np.uint8)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    images = images[:, :, : shape[1], : shape[2]].copy()
    del model.graph.output[:-1]
    lean, keeping = SpikeEngine(model), SpikeEngine(model, keep_spikes=True)
    name = model.graph.output[0].name
    np.testing.assert_array_equal(lean(images)[name], keeping(images)[name])
    assert lean.memory(2) <= keeping.memory(2)
    spikes = keeping.spikes(2)
    assert len(spikes) == 3
    for which, rate in keeping.rates(2).items():
        assert rate == pytest.approx(spikes[which].mean())
    with pytest.raises(ValueError, match='keep_spikes'):
        lean.spikes(2)


def test_engines_keep_what_they_prepared_for_a_few_sizes_of_batches(tmp_path):
    model = random_network(3)
    onnx.save(model, tmp_path / 'm.onnx')
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    images = np.random.default_rng(2).integers(0, 256, (7, *shape), np.uint8)
    name = model.graph.output[-1].name
    expected = open_engine('onnxruntime', tmp_path / 'm.onnx')(images)[name]
    spikes = SpikeEngine(model, keep_spikes=True)
    compiled = open_engine('openvino', tmp_path / 'm.onnx')
    for number in (1, 2, 3, 4, 5, 6, 1, 7, 2):
        for engine in (spikes, compiled):
            np.testing.assert_array_equal(engine(images[:number])[name], expected[:number])
    assert len(spikes._ready) == len(compiled._compiled) == 4
    assert spikes.spikes(7)
    with pytest.raises(ValueError, match='no spikes are kept of a call with 3 images'):
        spikes.spikes(3)


def test_a_model_without_spikes_is_refused():
    net = Builder()
    net.output(net.add('Relu', net.real('image')))
    with pytest.raises(ValueError, match='has no spiking layer'):
        SpikeEngine(net.model())


def test_declared_shapes_that_cannot_be_are_refused():
    net = Builder(seed=8)
    x = net.stem(40)
    net.add('MaxPool', x, kernel_shape=[2, 2], strides=[2, 2])
    model = net.model()
    value = helper.make_tensor_value_info(
        net.nodes[-1].output[0], TensorProto.UINT8, ['N', 40, 9, 9]
    )
    model.graph.output.append(value)
    with pytest.raises(ValueError, match='declared as|existing shape differ'):
        SpikeEngine(model)


def test_without_a_compiler_onnx_runtime_runs_instead(tmp_path, monkeypatch):
    model = random_network(3)
    onnx.save(model, tmp_path / 'm.onnx')
    monkeypatch.setenv('CC', 'no-such-compiler')
    native.library.cache_clear()
    with pytest.warns(UserWarning, match='ONNX Runtime runs instead .*no-such-compiler'):
        engine = open_engine('spikes', tmp_path / 'm.onnx')
    native.library.cache_clear()
    assert type(engine).__name__ == 'OnnxRuntime'
