"""Finds the layers of a graph that the engine runs itself."""

import numpy as np
from onnx import NodeProto, TensorProto

from .graph import Graph, attributes
from .layers import (
    BITS,
    Fire,
    Geometry,
    JoinBits,
    Layer,
    PoolBits,
    RealConv,
    RepeatBits,
    SpikingConv,
    StemConv,
)

_STEM_CHANNELS = 4


def find_layers(graph: Graph) -> list[Layer]:
    """Return the layers in the order in which they can run, but for what lies between them.

    Spikes come from the first of these forms, and every layer else reads or writes what another wrote:

    - ``QLinearConv`` of scales 1 -> [``MaxPool``] -> ``Clip`` to 1 -> [``BitwiseXor``], of image or spikes
    - ``MaxPool``, ``Concat``, ``Resize`` of spikes
    - ``Cast`` of spikes -> ``Conv``, [-> ``Add`` of another tensor]
    - ``GreaterOrEqual`` of numbers and levels -> ``Cast`` -> [``BitwiseXor``]
    """
    return _Matching(graph).run()


class _Matching:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layers: list[Layer] = []
        self.bits: set[str] = set()
        self.views: dict[str, str] = {}  # Cast of spikes: the spikes
        self.numbers: dict[str, Layer] = {}

    def run(self) -> list[Layer]:
        """Match."""
        find = {
            'QLinearConv': self._spiking,
            'MaxPool': self._pool,
            'Concat': self._join,
            'Resize': self._repeat,
            'Cast': self._view,
            'Conv': self._real,
            'Add': self._add,
            'GreaterOrEqual': self._fire,
        }
        for node in self.graph.nodes:
            match = find.get(node.op_type)
            layers = match(node) if match else None
            for layer in layers or ():
                self.layers.append(layer)
                if isinstance(layer, BITS):
                    self.bits.add(layer.output)
                else:
                    self.numbers[layer.output] = layer
        return self.layers

    def _spiking(self, node: NodeProto) -> list[Layer] | None:
        constants = [self.graph.constants.get(name) for name in node.input[1:]]
        if any(c is None for c in constants) or len(constants) != 8:
            return None
        x, name = node.input[0], node.output[0]
        x_scale, zero, weight, w_scale, w_zero, y_scale, y_zero, bias = constants
        ones = all(c.size == 1 and c.item() == 1 for c in (x_scale, w_scale, y_scale))
        zeros = np.any(w_zero) or np.any(y_zero) or zero.size != 1
        geometry = _geometry(node, weight.shape[2:])
        group = attributes(node).get('group', 1)
        if not ones or zeros or geometry is None or group != 1 or weight.dtype != np.int8:
            return None
        nodes = [node]
        pool = self.graph.only_reader(name, 'MaxPool')
        pooling = None
        if pool is not None:
            pooling = _geometry(pool)
            if pooling is None:
                return None
            nodes.append(pool)
        clip = self.graph.only_reader(nodes[-1].output[0], 'Clip')
        if clip is None or self._constant(clip, 2) != 1:
            return None
        nodes.append(clip)
        flip, xor = self._flip(clip.output[0], len(weight))
        nodes += [xor] if xor is not None else []
        level = 1 - bias.astype(np.int64)
        replaces = {out for n in nodes for out in n.output}
        out = nodes[-1].output[0]
        common = dict(weight=weight, geometry=geometry, replaces=replaces)
        own = np.zeros(len(weight), np.uint8) if pooling else flip
        target = f'{out}/unpooled' if pooling else out
        if x in self.bits and not zero.item():
            conv = SpikingConv([x], target, level=level, flip=own, **common)
        elif x in self.graph.inputs and weight.shape[1] <= _STEM_CHANNELS:
            conv = StemConv([x], target, level=level, zero=int(zero.item()), flip=own, **common)
        else:
            return None
        if pooling is None:
            return [conv]
        self.graph.shapes[target] = self.graph.shapes[name]
        return [conv, PoolBits([target], out, pooling, flip, replaces={out})]

    def _flip(self, name: str, channels: int) -> tuple[np.ndarray, NodeProto | None]:
        """Return which channels of spikes are turned around behind them, and by which node."""
        xor = self.graph.only_reader(name, 'BitwiseXor')
        flip = None
        if xor is not None:
            flip = next(
                (c for c in map(self.graph.constants.get, xor.input) if c is not None), None
            )
        if flip is None or flip.size != channels:
            return np.zeros(channels, np.uint8), None
        return flip.ravel().astype(np.uint8), xor

    def _pool(self, node: NodeProto) -> list[Layer] | None:
        x, geometry = node.input[0], _geometry(node)
        if x not in self.bits or geometry is None:
            return None
        flip = np.zeros(self.graph.shapes[x][1], np.uint8)
        return [PoolBits([x], node.output[0], geometry, flip, replaces=set(node.output))]

    def _join(self, node: NodeProto) -> list[Layer] | None:
        if attributes(node)['axis'] != 1 or not self.bits.issuperset(node.input):
            return None
        return [JoinBits(list(node.input), node.output[0], replaces=set(node.output))]

    def _repeat(self, node: NodeProto) -> list[Layer] | None:
        x, out, given = node.input[0], node.output[0], attributes(node)
        if x not in self.bits or given.get('mode', 'nearest') != 'nearest':
            return None
        before, after = self.graph.shapes[x][2:], self.graph.shapes.get(out, (0,) * 4)[2:]
        whole = all(a and not a % b for a, b in zip(after, before, strict=True))
        # With whole factors, both of these take the place above and to the left.
        way = given.get('coordinate_transformation_mode', 'half_pixel')
        rounding = given.get('nearest_mode', 'round_prefer_floor')
        known = (way == 'asymmetric' and rounding == 'floor') or (
            way == 'half_pixel' and rounding.startswith('round')
        )
        if not whole or not known:
            return None
        scale = tuple(a // b for a, b in zip(after, before, strict=True))
        return [RepeatBits([x], out, scale, replaces=set(node.output))]

    def _view(self, node: NodeProto) -> None:
        if node.input[0] in self.bits and attributes(node)['to'] == TensorProto.FLOAT:
            self.views[node.output[0]] = node.input[0]

    def _real(self, node: NodeProto) -> list[Layer] | None:
        x, name = node.input[0], node.input[1]
        weight, step, used = self.graph.constants.get(name), None, []
        if weight is None:
            weight, step = self._restored(name)
            used = [name]
        geometry = None if weight is None else _geometry(node, weight.shape[2:])
        grouped = attributes(node).get('group', 1) != 1
        if x not in self.views or geometry is None or grouped:
            return None
        outputs = len(weight)
        bias = np.zeros(outputs, np.float32)
        if len(node.input) > 2 and node.input[2]:
            bias = self.graph.constants.get(node.input[2])
        if bias is None:
            return None
        step = np.ones(outputs, np.float32) if step is None else step
        replaces = {*node.output, *used}
        return [
            RealConv(
                [self.views[x]], node.output[0], weight, step, bias, geometry, replaces=replaces
            )
        ]

    def _restored(self, name: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return int8 weights and their steps, where a weight is restored from them."""
        node = self.graph.producer.get(name)
        if node is None or node.op_type != 'DequantizeLinear' or len(node.input) > 2:
            return None, None
        weight, step = (self.graph.constants.get(n) for n in node.input)
        if weight is None or step is None or step.size not in (1, len(weight)):
            return None, None
        if step.size > 1 and attributes(node).get('axis', 1) != 0:
            return None, None
        return weight, np.broadcast_to(step.ravel().astype(np.float32), len(weight))

    def _add(self, node: NodeProto) -> list[Layer] | None:
        """Let a convolution add the stream itself."""
        for own, other in (node.input, reversed(node.input)):
            layer = self.numbers.get(own)
            if (
                isinstance(layer, RealConv)
                and layer.stream is None
                and self.graph.only_reader(own, 'Add')
                and self.graph.shapes.get(other) == self.graph.shapes.get(own)
                and other not in self.views
            ):
                self.layers.remove(layer)
                del self.numbers[own]
                layer.stream, layer.output = other, node.output[0]
                layer.inputs.append(other)
                layer.replaces.update(node.output)
                return [layer]
        return None

    def _fire(self, node: NodeProto) -> list[Layer] | None:
        x, level = node.input[0], self.graph.constants.get(node.input[1])
        cast = self.graph.only_reader(node.output[0], 'Cast')
        shape = self.graph.shapes.get(x, ())
        if level is None or cast is None or len(shape) != 4 or level.size not in (1, shape[1]):
            return None
        if attributes(cast)['to'] != TensorProto.UINT8:
            return None
        flip, xor = self._flip(cast.output[0], shape[1])
        nodes = [node, cast] + ([xor] if xor is not None else [])
        replaces = {out for n in nodes for out in n.output}
        level = np.broadcast_to(level.ravel().astype(np.float32), shape[1])
        return [Fire([x], nodes[-1].output[0], level, flip, replaces=replaces)]

    def _constant(self, node: NodeProto, index: int) -> float | None:
        value = self.graph.constants.get(node.input[index]) if len(node.input) > index else None
        return None if value is None or value.size != 1 else value.item()


def _geometry(node: NodeProto, kernel: tuple[int, ...] | None = None) -> Geometry | None:
    """Return the geometry of a convolution or pooling in two dimensions, None for another."""
    given = attributes(node)
    kernel = tuple(given.get('kernel_shape', kernel or ()))
    pads = given.get('pads', [0, 0, 0, 0])
    if len(kernel) != 2 or given.get('auto_pad', 'NOTSET') != 'NOTSET' or len(pads) != 4:
        return None
    if node.op_type == 'MaxPool' and (
        any(d != 1 for d in given.get('dilations', [1])) or given.get('storage_order')
    ):
        return None
    stride, dilation = given.get('strides', [1, 1]), given.get('dilations', [1, 1])
    if min(*kernel, *stride, *dilation) < 1 or min(pads) < 0:
        return None
    return Geometry(kernel, tuple(stride), tuple(pads[:2]), tuple(pads[2:]), tuple(dilation))
