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
