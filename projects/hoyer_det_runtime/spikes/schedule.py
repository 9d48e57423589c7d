"""Orders the engine's layers and the nodes that are left to ONNX Runtime."""

from dataclasses import dataclass, field

from onnx import NodeProto

from .graph import Graph
from .layers import Layer


@dataclass
class Stage:
    """Either layers of the engine or nodes for ONNX Runtime, in order."""

    layers: list[Layer] = field(default_factory=list)
    nodes: list[NodeProto] = field(default_factory=list)


def schedule(graph: Graph, layers: list[Layer]) -> list[Stage]:
    """Return stages that run one after another, with as few changes between the two as it takes."""
    places = {name: index for index, node in enumerate(graph.nodes) for name in node.output}
    replaced = set().union(*(layer.replaces for layer in layers))
    needed = _needed(graph, layers, replaced)
    items: list[tuple[float, Layer | NodeProto]] = [
        (index, node) for index, node in enumerate(graph.nodes) if index in needed
    ]
    for layer in layers:
        # A fused layer runs where the last of its nodes stood; what it hands to a pooling, just before.
        ends = [places[name] for name in layer.replaces if name in places]
        items.append((max(ends) + (0 if layer.output in places else -0.5), layer))
    items.sort(key=lambda item: item[0])
    numbers: dict[str, int] = {}
    stages: dict[int, Stage] = {}
    for _, item in items:
        own = isinstance(item, Layer)
        inputs = item.inputs if own else [n for n in item.input if n]
        outputs = [item.output] if own else item.output
        # Layers have even numbers, nodes odd ones.
        number = 0 if own else 1
        for name in inputs:
            before = numbers.get(name)
            if before is not None:
                same = before % 2 == (0 if own else 1)
                number = max(number, before if same else before + 1)
        numbers.update(dict.fromkeys(outputs, number))
        stage = stages.setdefault(number, Stage())
        (stage.layers if own else stage.nodes).append(item)
    return [stages[number] for number in sorted(stages)]


def _needed(graph: Graph, layers: list[Layer], replaced: set[str]) -> set[int]:
    """Return the places of the nodes that no layer replaces and whose outputs are read in the end."""
    places = {name: index for index, node in enumerate(graph.nodes) for name in node.output}
    found: set[int] = set()
    names = [*graph.outputs, *(name for layer in layers for name in layer.inputs)]
    while names:
        name = names.pop()
        index = places.get(name)
        if index is None or index in found or name in replaced:
            continue
        found.add(index)
        names += [n for n in graph.nodes[index].input if n]
    return found
