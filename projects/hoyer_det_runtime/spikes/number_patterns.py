"""Forms in which real-valued tensors are made of spikes and of the image: read-outs, residual streams."""

import numpy as np
from onnx import NodeProto, TensorProto

from .found import Found, geometry_of, whole_factors
from .graph import attributes
from .layers import (
    AddNumbers,
    JoinNumbers,
    Layer,
    MeanNumbers,
    PoolNumbers,
    RealConv,
    RealStem,
    RepeatNumbers,
)


def conv(found: Found, node: NodeProto) -> list[Layer] | None:
    """``Cast`` of spikes -> ``Conv``; weights float, or int8 behind ``DequantizeLinear``."""
    spikes, read = found.views.get(node.input[0]), _weights(found, node)
    if spikes is None or read is None:
        return None
    weight, step, bias = read
    geometry = geometry_of(node, weight.shape[2:])
    if geometry is None or not found.fits_lists(weight):
        return None
    replaces = set(node.output)
    return [RealConv([spikes], node.output[0], weight, step, bias, geometry, replaces=replaces)]


def stem(found: Found, node: NodeProto) -> list[Layer] | None:
    """Image -> ``Cast`` -> [``Sub`` a number] -> ``Conv`` of int8 behind ``DequantizeLinear``."""
    graph, zero = found.graph, 0.0
    cast = graph.producer.get(node.input[0])
    if cast is not None and cast.op_type == 'Sub':
        number = graph.constants.get(cast.input[1])
        if number is None or number.size != 1:
            return None
        zero, cast = number.item(), graph.producer.get(cast.input[0])
    read = _weights(found, node)
    if cast is None or cast.op_type != 'Cast' or not found.is_image(cast.input[0]) or read is None:
        return None
    weight, step, bias = read
    geometry = geometry_of(node, weight.shape[2:])
    whole = zero in range(256) and attributes(cast)['to'] == TensorProto.FLOAT
    if geometry is None or not found.fits_stem(weight, geometry) or not whole:
        return None
    image = cast.input[0]
    common = dict(zero=int(zero), geometry=geometry, replaces=set(node.output))
    return [RealStem([image], node.output[0], weight, step, bias, **common)]


def pool(found: Found, node: NodeProto) -> list[Layer] | None:
    """``MaxPool`` of numbers that the engine made."""
    x, geometry = node.input[0], geometry_of(node)
    if x not in found.numbers or geometry is None:
        return None
    scale = np.ones(found.graph.shapes[x][1], np.float32)
    return [PoolNumbers([x], node.output[0], geometry, scale, replaces=set(node.output))]


def scale(found: Found, node: NodeProto) -> list[Layer] | None:
    """``Mul`` of pooled numbers with a number for each channel."""
    for x, other in (node.input, reversed(node.input)):
        layer = found.numbers.get(x)
        if not isinstance(layer, PoolNumbers) or not found.graph.only_reader(x, 'Mul'):
            continue
        factors = found.channel_values(other, len(layer.scale))
        if factors is not None:
            found.remove(layer)
            layer.scale = layer.scale * factors.astype(np.float32)
            layer.output = node.output[0]
            layer.replaces.update(node.output)
            return [layer]
    return None


def join(found: Found, node: NodeProto) -> list[Layer] | None:
    """``Concat`` of numbers that the engine made, channel behind channel."""
    if attributes(node)['axis'] != 1 or not found.numbers.keys() >= set(node.input):
        return None
    return [JoinNumbers(list(node.input), node.output[0], replaces=set(node.output))]


def repeat(found: Found, node: NodeProto) -> list[Layer] | None:
    """``Resize`` of numbers that the engine made, by whole factors to the nearest place."""
    factors = whole_factors(found, node) if node.input[0] in found.numbers else None
    if factors is None:
        return None
    return [RepeatNumbers([node.input[0]], node.output[0], factors, replaces=set(node.output))]


def add_stream(found: Found, node: NodeProto) -> list[Layer] | None:
    """``Add`` of a convolution of spikes and another tensor: the convolution adds it itself."""
    for own, other in (node.input, reversed(node.input)):
        layer = found.numbers.get(own)
        if (
            isinstance(layer, RealConv)
            and layer.stream is None
            and found.graph.only_reader(own, 'Add')
            and found.graph.shapes.get(other) == found.graph.shapes.get(own)
            and other not in found.views
            and other not in found.graph.constants
        ):
            found.remove(layer)
            layer.stream, layer.output = other, node.output[0]
            layer.inputs.append(other)
            layer.replaces.update(node.output)
            return [layer]
    return None


def add(found: Found, node: NodeProto) -> list[Layer] | None:
    """``Add`` of numbers that the engine made."""
    shapes = [found.graph.shapes.get(name) for name in node.input]
    if not found.numbers.keys() >= set(node.input) or shapes[0] != shapes[1]:
        return None
    return [AddNumbers(list(node.input), node.output[0], replaces=set(node.output))]


def mean(found: Found, node: NodeProto) -> list[Layer] | None:
    """``Reshape`` of numbers into groups of channels -> ``ReduceMean`` over each group."""
    graph, cut = found.graph, found.graph.producer.get(node.input[0])
    if cut is None or cut.op_type != 'Reshape' or cut.input[0] not in found.numbers:
        return None
    axes = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
    sides, shape = graph.constants.get(cut.input[1]), graph.shapes[cut.input[0]]
    over_groups = axes is not None and axes.tolist() == [2]
    if not over_groups or attributes(node).get('keepdims', 1) or sides is None or len(sides) != 5:
        return None
    groups, size, *place = sides[1:].tolist()
    # The mean of a power of 2 of numbers is their exact sum, moved.
    if sides[0] != -1 or size < 1 or size & (size - 1) or (groups * size, *place) != shape[1:]:
        return None
    return [MeanNumbers([cut.input[0]], node.output[0], size, replaces=set(node.output))]


def _weights(found: Found, node: NodeProto) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return weights of int8 or float32, their steps and the bias; None if they are no such constants."""
    name, constants = node.input[1], found.graph.constants
    weight, step, kind = constants.get(name), np.ones(1, np.float32), np.float32
    restoring = found.graph.producer.get(name)
    if restoring is not None and restoring.op_type == 'DequantizeLinear':
        given = [constants.get(n) for n in restoring.input]
        if len(given) != 2 or any(c is None for c in given):
            return None
        (weight, step), kind = given, np.int8
        per_channel = attributes(restoring).get('axis', 1) == 0 and step.shape == weight.shape[:1]
        if step.size != 1 and not per_channel:
            return None
    if weight is None or weight.ndim != 4 or weight.dtype != kind:
        return None
    bias = np.zeros(len(weight), np.float32)
    if len(node.input) > 2 and node.input[2]:
        bias = constants.get(node.input[2])
        if bias is None or bias.shape != (len(weight),):
            return None
    return weight, np.broadcast_to(step.ravel(), len(weight)), bias
