"""Rewrites an exported graph so that spikes are bytes and folded convolutions integers.

The form of every part is agreed with the spike-driven engine and described in ``docs/deployment.md``.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

_FIRE = ('hoyer_det', 'Fire')
# Operations that hand spikes on as they are, and how many of their inputs are such.
_COPIES = {'MaxPool': 1, 'Resize': 1, 'Slice': 1, 'Transpose': 1, 'Reshape': 1, 'Concat': None}
_FLOAT, _BYTE = ir.DataType.FLOAT, ir.DataType.UINT8

# Integers (M, C, kh, kw) and steps (M,) of a rounded weight.
Rounded = tuple[np.ndarray, np.ndarray]


def use_integers(model: ir.Model, rounded: Mapping[str, Rounded]) -> list[str]:
    """Rewrite the neurons of a folded detector, in place.

    - A neuron on integer sums: ``QLinearConv`` of bytes, with all scales 1 and the bias ``1 - T``, so that
      the saturated output is at least 1 where the neuron fires; [``MaxPool``]; ``Clip`` to 1;
      [``BitwiseXor``] where it is inverted.
    - A neuron on real values: ``GreaterOrEqual``, ``Cast``, [``BitwiseXor``].
    - What copies, pools or adds spikes works on bytes; any other reader gets a ``Cast`` to float.
    - Rounded weights are stored as int8 behind ``DequantizeLinear``.

    Args:
        model: Of a :class:`FiringLevel` for every neuron.
        rounded: Name of a weight whose sums are read as real values: its integers, and the step of each
            output channel.

    Returns:
        Names of the tensors of spikes, in order: ``spikes/`` and the name of the neuron.

    Raises:
        ValueError: If a convolution does not read what the folded detector says, or its weight is no
            multiple of its integers.
    """
    rewriter = _Rewriter(model.graph, rounded)
    for node in list(model.graph):
        rewriter.visit(node)
    RemoveUnusedNodesPass()(model)
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
    model.opset_imports.pop(_FIRE[0], None)
    return rewriter.names


def _interpolates(node: ir.Node) -> bool:
    """Tell whether a node makes new values of those it reads, as bilinear upsampling does."""
    mode = node.attributes.get('mode')
    return node.op_type == 'Resize' and mode is not None and mode.as_string() != 'nearest'


def _fit(integers: np.ndarray, values: np.ndarray) -> Rounded:
    """Return the steps, positive, by which integers become values, and the integers with their signs.

    Args:
        integers: float32 (M, C, kh, kw).
        values: The integers times one number for each output channel.
    """
    flat = integers.reshape(len(integers), -1).astype(np.float64)
    products = (values.reshape(flat.shape) * flat).sum(1)
    step = products / np.maximum((flat**2).sum(1), 1)
    sign = np.where(step < 0, -1, 1).astype(np.float32)
    # A channel that its norm multiplies with 0 has integers of 0, since no step may be 0.
    sign[step == 0] = 0
    step = np.where(step == 0, 1, np.abs(step)).astype(np.float32)
    return integers * sign.reshape(-1, 1, 1, 1), step


class _Rewriter:
    def __init__(self, graph: ir.Graph, rounded: Mapping[str, Rounded]) -> None:
        self.graph = graph
        self.rounded = rounded
        self.names: list[str] = []
        self.bytes: dict[ir.Value, ir.Value] = {}  # float tensor of spikes: the same as bytes
        self.constants: dict[tuple, ir.Value] = {}
        self.image = graph.inputs[0]

    def visit(self, node: ir.Node) -> None:
        """Rewrite a node; all before it are done."""
        kind = node.op_type
        if (node.domain, kind) == _FIRE:
            self._fire(node)
        elif kind in _COPIES and not _interpolates(node):
            inputs = node.inputs[: _COPIES[kind]]
            if all(value in self.bytes for value in inputs):
                twins = [self.bytes[value] for value in inputs]
                self._copy(node, [*twins, *node.inputs[len(inputs) :]])
        elif kind == 'Add' and all(value in self.bytes for value in node.inputs):
            self._copy(node, [self.bytes[value] for value in node.inputs])
        elif kind == 'Conv' and node.inputs[1].name in self.rounded:
            self._store_integers(node)

    def _fire(self, node: ir.Node) -> None:
        x, level, invert = node.inputs
        key = node.attributes['key'].as_string()
        level, invert = level.const_value.numpy().ravel(), invert.const_value.numpy().ravel()
        if node.attributes['integer'].as_int():
            spikes = self._integer_sums(node, x, level)
        else:
            levels = self._constant(level.astype(np.float32).reshape(1, -1, 1, 1), f'{key}.level')
            reached = self._add(node, 'GreaterOrEqual', [x, levels], ir.DataType.BOOL, x.shape)
            spikes = self._add(node, 'Cast', [reached], _BYTE, x.shape, to=_BYTE)
        if invert.any():
            flip = np.broadcast_to(invert, level.shape).astype(np.uint8).reshape(1, -1, 1, 1)
            flip = self._constant(flip, f'{key}.flip')
            spikes = self._add(node, 'BitwiseXor', [spikes, flip], _BYTE, x.shape)
        name, number = f'spikes/{key}', 2
        while name in self.names:  # a neuron that several feature levels share
            name, number = f'spikes/{key}#{number}', number + 1
        spikes.name = name
        self.names.append(name)
        self._replace(node, spikes)

    def _integer_sums(self, node: ir.Node, x: ir.Value, level: np.ndarray) -> ir.Value:
        """Return ``x >= level`` as bytes, for the sums of a convolution, pooled or not."""
        pool, conv = None, x.producer()
        if conv.op_type == 'MaxPool':
            pool, conv = conv, conv.inputs[0].producer()
        read, weight = conv.inputs[:2]
        weights = weight.const_value.numpy()
        source, zero = self._source(read)
        bias = (1 - level.astype(np.int64)).astype(np.int32)
        inputs = [
            *(source, self._number(1.0), self._number(zero, np.uint8)),
            self._constant(weights.astype(np.int8), weight.name),
            *(self._number(1.0), self._number(0, np.int8)),
            *(self._number(1.0), self._number(0, np.uint8)),
            self._constant(np.broadcast_to(bias, len(weights)).copy(), f'{weight.name}.bias'),
        ]
        out = conv.outputs[0]
        value = self._add(node, 'QLinearConv', inputs, _BYTE, out.shape, like=conv)
        if pool is not None:
            value = self._add(node, 'MaxPool', [value], _BYTE, x.shape, like=pool)
        ends = self._number(0, np.uint8), self._number(1, np.uint8)
        return self._add(node, 'Clip', [value, *ends], _BYTE, x.shape)

    def _source(self, read: ir.Value) -> tuple[ir.Value, int]:
        """Return what a convolution reads as bytes, and which byte stands for 0."""
        if read in self.bytes:
            return self.bytes[read], 0
        zero, node = 0, read.producer()
        if node is not None and node.op_type == 'Sub':
            zero = int(node.inputs[1].const_value.numpy())
            node = node.inputs[0].producer()
        if node is None or node.op_type != 'Cast' or node.inputs[0] is not self.image:
            raise ValueError(f'export: {read.name} is read as integers, but is none')
        return self.image, zero

    def _store_integers(self, node: ir.Node) -> None:
        """Let a convolution read its weight as int8 with a scale per output channel."""
        weight = node.inputs[1]
        integers, step = self.rounded[weight.name]
        if np.abs(integers).max(initial=0) > 127:  # a first convolution of 12 bits
            return
        values = weight.const_value.numpy()
        if not np.array_equal(integers * step.reshape(-1, 1, 1, 1), values):
            # The exporter has multiplied it with a batch norm that stayed.
            integers, step = _fit(integers, values)
            if not np.allclose(integers * step.reshape(-1, 1, 1, 1), values, rtol=1e-5, atol=0):
                raise ValueError(f'export: {weight.name} is not a multiple of its integers')
        inputs = [
            self._constant(integers.astype(np.int8), f'{weight.name}.integers'),
            self._constant(step, f'{weight.name}.steps'),
        ]
        restored = self._add(node, 'DequantizeLinear', inputs, _FLOAT, weight.shape, axis=0)
        node.replace_input_with(1, restored)

    def _copy(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
        out = node.outputs[0]
        twin = self._add(node, node.op_type, inputs, _BYTE, out.shape, like=node)
        self._replace(node, twin)

    def _replace(self, node: ir.Node, twin: ir.Value) -> None:
        """Remember bytes for the output of a node, and let its readers see them as float."""
        out = node.outputs[0]
        real = self._add(node, 'Cast', [twin], _FLOAT, out.shape, to=_FLOAT)
        ir.convenience.replace_all_uses_with(out, real)
        self.bytes[real] = twin

    def _add(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        dtype: ir.DataType,
        shape: ir.Shape | None,
        like: ir.Node | None = None,
        **attributes: int,
    ) -> ir.Value:
        """Insert a node, with the attributes of another or some of its own."""
        if like is not None:
            attributes = {name: value.value for name, value in like.attributes.items()}
            if op_type == 'QLinearConv':
                attributes.pop('auto_pad', None)
        attributes = {k: int(v) if isinstance(v, ir.DataType) else v for k, v in attributes.items()}
        node = ir.node(op_type, inputs, attributes)
        self.graph.insert_before(before, node)
        out = node.outputs[0]
        out.dtype, out.shape = dtype, shape
        return out

    def _number(self, value: float, dtype: type = np.float32) -> ir.Value:
        return self._constant(np.array(value, dtype), f'{np.dtype(dtype).name}_{value:g}')

    def _constant(self, array: np.ndarray, name: str) -> ir.Value:
        """Return an initializer, one for all that are equal."""
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self.constants:
            base, number = name, 2
            while name in self.graph.initializers:
                name, number = f'{base}#{number}', number + 1
            tensor = ir.tensor(array, name=name)
            value = ir.Value(
                name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            self.graph.register_initializer(value)
            self.constants[key] = value
        return self.constants[key]
