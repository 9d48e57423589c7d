"""Layers in strips: what each strip makes, and that nothing else comes out than from whole layers."""

import shutil

import numpy as np
import onnxruntime
import pytest
from hoyer_det_runtime.spikes import SpikeEngine, chains
from hoyer_det_runtime.spikes.strips import Part, Vertical, cut
from instructions import PATHS
from onnx_layers import random_network


def random_layers(seed):
    draw = np.random.default_rng(seed)
    layers, height = [], int(draw.integers(9, 60))
    for _ in range(int(draw.integers(2, 6))):
        kernel, dilation = int(draw.integers(1, 5)), int(draw.integers(1, 3))
        stride, padding = int(draw.integers(1, 4)), int(draw.integers(0, kernel))
        reach = (kernel - 1) * dilation + 1
        if height + 2 * padding < reach:
            break
        out = (height + 2 * padding - reach) // stride + 1
        layers.append(Vertical(kernel, stride, padding, dilation, height, out))
        height = out
    return layers, int(draw.integers(1, 9))


@pytest.mark.parametrize('seed', range(40))
def test_every_line_is_made_once_and_there_when_it_is_read(seed):
    layers, lines = random_layers(seed)
    memory = [dict() for _ in layers]  # line of the memory -> line of the output
    made = [0] * len(layers)
    for strip in cut(layers, lines):
        for i, (layer, part) in enumerate(zip(layers, strip, strict=True)):
            memory[i] = {k: memory[i][part.kept_from + k] for k in range(part.kept)}
            assert part.first == made[i]
            for line in range(part.first, part.end):
                for k in range(layer.kernel):
                    read = line * layer.stride - layer.padding + k * layer.dilation
                    if i and 0 <= read < layer.height:
                        assert memory[i - 1][read - part.source] == read
                memory[i][line - part.target] = line
            assert len(memory[i]) <= max(part.lines, part.kept)
            made[i] = part.end
    assert made[-1] == layers[-1].out_height


def test_two_convolutions_and_a_pooling_by_hand():
    convolution, pooling = Vertical(3, 1, 1, 1, 8, 8), Vertical(2, 2, 0, 1, 8, 4)
    assert cut([convolution, convolution, pooling], 2) == [
        [Part(0, 5), Part(0, 4), Part(0, 2)],
        [Part(5, 8, 0, 3, 2, 3), Part(4, 8, 3, 4, 0, 4), Part(2, 4, 4, 0, 0, 0)],
    ]


@pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')
@pytest.mark.parametrize('instructions', PATHS)
@pytest.mark.parametrize('seed', range(12))
def test_strips_change_no_spike(seed, instructions, monkeypatch):
    model = random_network(seed)
    del model.graph.output[:-1]  # else all are wanted whole
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    images = np.random.default_rng(1).integers(0, 256, (1, *shape), np.uint8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    (expected,) = session.run(None, {'image': images})
    monkeypatch.setattr(chains, '_WHOLE_BYTES', 0)
    monkeypatch.setattr(chains, '_STRIP_BYTES', 0)
    engine = SpikeEngine(model, 1 + seed % 3, instructions=instructions)
    for _ in range(2):  # a second time in memory that was used
        np.testing.assert_array_equal(engine(images)[session.get_outputs()[0].name], expected)
    names = [name for name, _ in engine.timed(images)]
    assert (len(names) > len(set(names))) == (expected.shape[2] > 1)  # calls for each line


@pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')
def test_strips_save_memory(monkeypatch):
    model = random_network(5)
    del model.graph.output[:-1]
    whole = SpikeEngine(model).memory()
    monkeypatch.setattr(chains, '_WHOLE_BYTES', 0)
    monkeypatch.setattr(chains, '_STRIP_BYTES', 0)
    assert SpikeEngine(model).memory() < whole
