"""Small ONNX graphs in the form that ``hoyer-det export`` writes."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Collects nodes of a graph whose input ``image`` is uint8 (N, channels, side, side)."""

    def __init__(self, channels: int = 3, side: int = 12, seed: int = 0):
        self.random = np.random.default_rng(seed)
        self.nodes, self.initializers, self.outputs = [], [], []
        shape = ['N', channels, side, side]
        self.image = helper.make_tensor_value_info('image', TensorProto.UINT8, shape)
        for name, value in {
            **dict(one=np.float32(1), zero=np.uint8(0), last=np.uint8(1), weight_zero=np.int8(0)),
        }.items():
            self.constant(value, name)

    def constant(self, value, name=None):
        name = name or f'c{len(self.initializers)}'
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, op_type, *inputs, **attributes):
        name = f'v{len(self.nodes)}'
        self.nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        return name

    def spikes(self, x, weight, level, pool=None, flip=None, zero=0, **attributes):
        """Convolution, [pooling], neuron, [inversion]; remembered as an output."""
        bias = self.constant((1 - np.asarray(level)).astype(np.int32))
        zero = self.constant(np.uint8(zero))
        rest = 'one', 'weight_zero', 'one', 'zero', bias
        value = self.add('QLinearConv', x, 'one', zero, self.constant(weight), *rest, **attributes)
        if pool:
            value = self.add('MaxPool', value, **pool)
        value = self.add('Clip', value, 'zero', 'last')
        if flip is not None:
            flip = self.constant(np.asarray(flip, np.uint8).reshape(1, -1, 1, 1))
            value = self.add('BitwiseXor', value, flip)
        self.outputs.append((value, TensorProto.UINT8))
        return value

    def stem(self, channels=40, side=3):
        """Spikes of the image."""
        weight = self.random.integers(-64, 65, (channels, 3, side, side)).astype(np.int8)
        level = self.random.integers(-3000, 3000, channels)
        pads = [side // 2] * 4
        return self.spikes('image', weight, level, zero=114, pads=pads)

    def real(self, x):
        """Spikes as float."""
        return self.add('Cast', x, to=TensorProto.FLOAT)

    def output(self, x):
        self.outputs.append((x, TensorProto.FLOAT))

    def model(self):
        outputs = [
            helper.make_tensor_value_info(name, kind, [None] * 4) for name, kind in self.outputs
        ]
        graph = helper.make_graph(self.nodes, 'g', [self.image], outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
        onnx.checker.check_model(model)
        return model


def random_network(seed):
    """A stem and two layers of sizes, strides and weights drawn at random."""
    draw = np.random.default_rng(seed)
    net = Builder(side=int(draw.integers(7, 14)), seed=seed)
    channels = int(draw.integers(1, 150))
    x = net.stem(channels, int(draw.choice([3, 5])))
    for m in map(int, draw.integers(1, 150, 2)):
        kernel = int(draw.choice([1, 3, 3, 5]))
        largest = int(draw.choice([7, 15, 31, 60]))
        weight = draw.integers(-largest, largest + 1, (m, channels, kernel, kernel)).astype(np.int8)
        while np.abs(weight.astype(int)).sum((1, 2, 3)).max() > 32767:
            weight = (weight // 2).astype(np.int8)
        dilation = int(draw.choice([1, 1, 2])) if kernel > 1 else 1
        pads = [int(p) for p in draw.integers(0, 1 + kernel // 2 * dilation, 4)]
        pads = [max(p, (kernel - 1) * dilation // 2) for p in pads]
        spread = max(1, int(largest * (channels * kernel**2 / 4) ** 0.5))
        attributes = dict(
            pads=pads, dilations=[dilation] * 2, strides=[int(draw.choice([1, 1, 2]))] * 2
        )
        pool = flip = None
        if draw.random() < 0.5:
            pool = dict(kernel_shape=[2, 2], strides=[2, 2], ceil_mode=int(draw.integers(2)))
            flip = draw.integers(0, 2, m)
        x = net.spikes(x, weight, draw.integers(-spread, spread, m), pool, flip, **attributes)
        channels = m
    return net.model()
