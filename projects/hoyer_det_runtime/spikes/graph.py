"""An ONNX graph to look things up in."""

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper


def check(model: onnx.ModelProto) -> None:
    """Make sure that a model is valid ONNX.

    Raises:
        ValueError: If it is not; says why in a line.
    """
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise _invalid(error) from error


class Graph:
    """Nodes in order, with what produces and reads each value.

    Args:
        model: A model that was checked.

    Raises:
        ValueError: If its types and shapes do not fit each other; says why in a line.

    Attributes:
        nodes: In topological order, without constants.
        constants: Arrays by name.
        shapes: Shape of each value that is known, 0 for a dimension of any size.
        types: Element type of each value that is known.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        try:
            model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            raise _invalid(error) from error
        graph = model.graph
        self.model = model
        self.constants = {t.name: _array(t) for t in graph.initializer}
        self.nodes: list[NodeProto] = []
        for node in graph.node:
            if node.op_type == 'Constant' and node.attribute[0].name == 'value':
                self.constants[node.output[0]] = attributes(node)['value']
            else:
                self.nodes.append(node)
        self.inputs = [v.name for v in graph.input if v.name not in self.constants]
        self.outputs = [v.name for v in graph.output]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, int] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            if tensor.HasField('shape'):
                self.shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self._readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self._readers[name].append(node)

    def readers(self, name: str) -> list[NodeProto]:
        """Return the nodes that read a value."""
        return self._readers.get(name, [])

    def only_reader(self, name: str, op_type: str) -> NodeProto | None:
        """Return the reader of a value if it is the only one and of some type."""
        readers = self.readers(name)
        fits = len(readers) == 1 and readers[0].op_type == op_type and name not in self.outputs
        return readers[0] if fits else None


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a node; tensors as arrays, strings decoded."""
    found = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = _array(value)
        elif isinstance(value, bytes):
            value = value.decode()
        found[attribute.name] = value
    return found


def _invalid(error: Exception) -> ValueError:
    reason = ' '.join(str(error).split())
    return ValueError(f'no valid ONNX model ({reason[:200]})')


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{tensor.name}: a damaged tensor ({error})') from error
