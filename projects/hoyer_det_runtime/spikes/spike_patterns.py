"""Forms in which spikes are made and handed on."""

import numpy as np
from onnx import NodeProto, TensorProto

from .found import Found, geometry_of, whole_factors
from .graph import attributes
from .layers import Fire, JoinBits, Layer, PoolBits, RepeatBits, SpikingConv, StemConv


def spiking_conv(found: Found, node: NodeProto) -> list[Layer] | None:
    """``QLinearConv`` of scales 1 -> [``MaxPool``] -> ``Clip`` to 1 -> [``BitwiseXor``]."""
    graph = found.graph
    constants = [graph.constants.get(name) for name in node.input[1:]]
    if any(c is None for c in constants) or len(constants) != 8:
        return None
    x_scale, zero, weight, w_scale, w_zero, y_scale, y_zero, bias = constants
    ones = all(c.size == 1 and c.item() == 1 for c in (x_scale, w_scale, y_scale))
    geometry = geometry_of(node, weight.shape[2:])
    if not ones or np.any(w_zero) or np.any(y_zero) or zero.size != 1 or geometry is None:
        return None
    if weight.dtype != np.int8 or y_zero.dtype != np.uint8 or bias.shape != (len(weight),):
        return None
    nodes, pooling = [node], None
    pool_node = graph.only_reader(node.output[0], 'MaxPool')
    if pool_node is not None:
        nodes.append(pool_node)
        pooling = geometry_of(pool_node)
        if pooling is None:
            return None
    clip = graph.only_reader(nodes[-1].output[0], 'Clip')
    if clip is None or len(clip.input) != 3:
        return None
    ends = [graph.constants.get(name) for name in clip.input[1:]]
    if any(c is None or c.size != 1 for c in ends) or [c.item() for c in ends] != [0, 1]:
        return None
    flip, flipping = _inversion(found, clip.output[0], len(weight))
    nodes += [clip, *flipping]
    out, channels = nodes[-1].output[0], len(weight)
    target = out if pooling is None else f'{out}/unpooled'
    common = dict(
        weight=weight,
        level=1 - bias.astype(np.int64),
        geometry=geometry,
        flip=flip if pooling is None else np.zeros(channels, np.uint8),
        replaces={name for n in nodes for name in n.output},
    )
    x = node.input[0]
    if x in found.bits and not zero.item() and found.fits_lists(weight):
        conv = SpikingConv([x], target, **common)
    elif found.is_image(x) and found.fits_stem(weight, geometry):
        conv = StemConv([x], target, zero=int(zero.item()), **common)
    else:
        return None
    if pooling is None:
        return [conv]
    graph.shapes[target] = graph.shapes.get(node.output[0], ())
    return [conv, PoolBits([target], out, pooling, flip, replaces={out})]


def fire(found: Found, node: NodeProto) -> list[Layer] | None:
    """``GreaterOrEqual`` of numbers and levels -> ``Cast`` -> [``BitwiseXor``]."""
    x, shape = node.input[0], found.graph.shapes.get(node.input[0], ())
    cast = found.graph.only_reader(node.output[0], 'Cast')
    if len(shape) != 4 or cast is None or attributes(cast)['to'] != TensorProto.UINT8:
        return None
    if found.graph.types[x] != TensorProto.FLOAT:
        return None
    level = found.channel_values(node.input[1], shape[1])
    if level is None:
        return None
    flip, flipping = _inversion(found, cast.output[0], shape[1])
    nodes = [node, cast, *flipping]
    replaces = {name for n in nodes for name in n.output}
    return [Fire([x], nodes[-1].output[0], level.astype(np.float32), flip, replaces=replaces)]


def pool(found: Found, node: NodeProto) -> list[Layer] | None:
    """``MaxPool`` of spikes."""
    x, geometry = node.input[0], geometry_of(node)
    if x not in found.bits or geometry is None:
        return None
    flip = np.zeros(found.graph.shapes[x][1], np.uint8)
    return [PoolBits([x], node.output[0], geometry, flip, replaces=set(node.output))]


def join(found: Found, node: NodeProto) -> list[Layer] | None:
    """``Concat`` of spikes, channel behind channel."""
    if attributes(node)['axis'] != 1 or not found.bits.issuperset(node.input):
        return None
    return [JoinBits(list(node.input), node.output[0], replaces=set(node.output))]


def repeat(found: Found, node: NodeProto) -> list[Layer] | None:
    """``Resize`` of spikes by whole factors to the nearest place."""
    factors = whole_factors(found, node) if node.input[0] in found.bits else None
    if factors is None:
        return None
    return [RepeatBits([node.input[0]], node.output[0], factors, replaces=set(node.output))]


def view(found: Found, node: NodeProto) -> None:
    """``Cast`` of spikes to float, which convolutions look through."""
    if node.input[0] in found.bits and attributes(node)['to'] == TensorProto.FLOAT:
        found.views[node.output[0]] = node.input[0]


def _inversion(found: Found, name: str, channels: int) -> tuple[np.ndarray, list[NodeProto]]:
    """Return which channels of spikes are turned around, and by which node."""
    xor = found.graph.only_reader(name, 'BitwiseXor')
    if xor is not None:
        other = xor.input[1] if xor.input[0] == name else xor.input[0]
        flip = found.channel_values(other, channels)
        if flip is not None and flip.max() <= 1:
            return flip.astype(np.uint8), [xor]
    return np.zeros(channels, np.uint8), []
