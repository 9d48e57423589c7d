"""Puts convolutions together that read the same spikes, such as the class and box read-outs of a level."""

from collections import defaultdict

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from .graph import attributes

_LAST = [0, 2, 3, 1]  # permutation that puts channels last


def merge_readouts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that computes the same with fewer convolutions.

    Merged are ``Conv`` nodes of the same input and window and one group, whose weights are int8 with a step
    for each channel and whose outputs go to a ``Transpose`` that puts channels last, and nowhere else. In
    place of the first stand one ``Conv``, one ``Transpose`` and a ``Split`` of the channels. The given model
    is not changed.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    restored = {
        node.output[0]: node.input
        for node in graph.node
        if node.op_type == 'DequantizeLinear'
        and len(node.input) == 2
        and all(name in constants for name in node.input)
        and constants[node.input[0]].data_type == TensorProto.INT8
        and len(constants[node.input[1]].dims) <= 1
        and attributes(node).get('axis', 1) == 0
    }
    transposes = _transposes(graph)
    alike: dict[tuple, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        fits = node.op_type == 'Conv' and node.input[1] in restored and node.output[0] in transposes
        fits = fits and attributes(node).get('group', 1) == 1
        if fits and all(name in constants for name in node.input[2:]):
            window = sorted(a.SerializeToString() for a in node.attribute)
            kernel = constants[restored[node.input[1]][0]].dims[1:]
            alike[(node.input[0], *kernel, *window)].append(node)
    groups = [nodes for nodes in alike.values() if len(nodes) > 1]
    if not groups:
        return model
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    replaced = {node.output[0]: nodes for nodes in groups for node in nodes}
    gone = {transposes[name].output[0] for name in replaced}
    del merged.graph.node[:]
    for node in graph.node:
        nodes = replaced.get(node.output[0] if node.output else '')
        if nodes is None and not (node.output and node.output[0] in gone):
            merged.graph.node.append(node)
        elif nodes is not None and node is nodes[0]:  # whose readers may come before the others
            weights = [
                [numpy_helper.to_array(constants[n]) for n in restored[c.input[1]]] for c in nodes
            ]
            biases = [
                numpy_helper.to_array(constants[c.input[2]])
                if len(c.input) > 2
                else np.zeros(len(weight), np.float32)
                for c, (weight, _) in zip(nodes, weights, strict=True)
            ]
            outputs = [transposes[c.output[0]].output[0] for c in nodes]
            _append(merged.graph, node, weights, biases, outputs)
    return merged


def _transposes(graph: onnx.GraphProto) -> dict[str, NodeProto]:
    """Return the ``Transpose`` that puts channels last behind each value that nobody else reads."""
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    wanted = {output.name for output in graph.output}
    return {
        name: nodes[0]
        for name, nodes in readers.items()
        if len(nodes) == 1
        and nodes[0].op_type == 'Transpose'
        and attributes(nodes[0]).get('perm') == _LAST
        and name not in wanted
    }


def _append(
    graph: onnx.GraphProto,
    conv: NodeProto,
    weights: list[list[np.ndarray]],
    biases: list[np.ndarray],
    outputs: list[str],
) -> None:
    """Append the nodes that stand for several convolutions like ``conv``."""
    base = f'{outputs[0]}/merged'
    arrays = dict(
        integers=np.concatenate([integers for integers, _ in weights]),
        steps=np.concatenate([np.broadcast_to(step, len(w)) for w, step in weights]),
        bias=np.concatenate(biases),
        sizes=np.array([len(bias) for bias in biases], np.int64),
    )
    names = {key: f'{base}/{key}' for key in arrays}
    graph.initializer.extend(numpy_helper.from_array(a, names[k]) for k, a in arrays.items())
    new = NodeProto()
    new.CopyFrom(conv)
    del new.input[:], new.output[:]
    new.input.extend([conv.input[0], f'{base}/weight', names['bias']])
    new.output.append(f'{base}/conv')
    graph.node.extend(
        [
            helper.make_node(
                'DequantizeLinear', [names['integers'], names['steps']], [f'{base}/weight'], axis=0
            ),
            new,
            helper.make_node('Transpose', [f'{base}/conv'], [base], perm=_LAST),
            helper.make_node('Split', [base, names['sizes']], outputs, axis=3),
        ]
    )
