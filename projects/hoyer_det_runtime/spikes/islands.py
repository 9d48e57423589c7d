"""Parts of a graph that ONNX Runtime runs: what the engine has no layer for, and the decoding of boxes."""

from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper

from .graph import Graph, attributes

_LAST = [0, 2, 3, 1]  # permutation that puts channels last


class Island:
    """Nodes that run together.

    Args:
        graph: The whole graph.
        nodes: The nodes, in order.
        wanted: Names of values that others read.
        numbers: Names of tensors that the engine makes with channels last.
        threads: Threads of ONNX Runtime.

    Attributes:
        inputs: Names of the values to feed, but for constants.
        channels_last: Those among them that are fed with channels last.
        outputs: Names of the values that come out.
    """

    def __init__(
        self,
        graph: Graph,
        nodes: list[NodeProto],
        wanted: Iterable[str],
        numbers: set[str],
        threads: int,
    ) -> None:
        inside = {name for node in nodes for name in node.output if name}
        read = dict.fromkeys(n for node in nodes for n in node.input if n and n not in inside)
        constants = [name for name in read if name in graph.constants]
        self.inputs = [name for name in read if name not in graph.constants]
        self.outputs = [name for name in dict.fromkeys(wanted) if name in inside]
        self.channels_last: set[str] = set()
        values, drop = [], []
        for name in self.inputs:
            readers = [node for node in nodes if name in node.input]
            shape = list(graph.shapes[name])
            own = all(_puts_channels_last(n) and n.output[0] not in self.outputs for n in readers)
            if name in numbers and own:
                self.channels_last.add(name)
                drop += readers
                shape = [shape[axis] for axis in _LAST]
                nodes = [_renamed(node, readers, name) for node in nodes]
            # The number of images is free, as are sides that are not known.
            sides = [None if axis == 0 else side or None for axis, side in enumerate(shape)]
            values.append(helper.make_tensor_value_info(name, graph.types[name], sides))
        nodes = [node for node in nodes if not any(node is other for other in drop)]
        outputs = [
            helper.make_tensor_value_info(name, graph.types.get(name, TensorProto.FLOAT), None)
            for name in self.outputs
        ]
        initializers = [onnx.numpy_helper.from_array(graph.constants[n], n) for n in constants]
        part = helper.make_graph(nodes, 'part', values, outputs, initializers)
        model = helper.make_model(
            part, opset_imports=graph.model.opset_import, ir_version=graph.model.ir_version
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait by spinning would take the cores from the engine's own.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # its own classes share no base but this
            raise _refused(error) from error

    def __call__(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run."""
        try:
            return dict(zip(self.outputs, self._session.run(self.outputs, feed), strict=True))
        except Exception as error:
            raise _refused(error) from error


def _refused(error: Exception) -> ValueError:
    reason = ' '.join(str(error).split())
    return ValueError(f'ONNX Runtime: {reason[:300]}')


def _puts_channels_last(node: NodeProto) -> bool:
    return node.op_type == 'Transpose' and list(attributes(node).get('perm', [])) == _LAST


def _renamed(node: NodeProto, transposes: list[NodeProto], name: str) -> NodeProto:
    """Let a node read ``name`` in the place of the outputs of some nodes."""
    if any(node is other for other in transposes):
        return node
    old = {other.output[0] for other in transposes}
    if old.isdisjoint(node.input):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for index, read in enumerate(copy.input):
        if read in old:
            copy.input[index] = name
    return copy
