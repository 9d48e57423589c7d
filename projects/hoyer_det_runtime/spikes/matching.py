"""Finds the layers of a graph that the engine runs itself."""

from . import number_patterns, spike_patterns
from .found import Found
from .graph import Graph
from .layers import Layer

# Patterns by the type of the node that they begin at, or end at where several branches join.
_PATTERNS = {
    'QLinearConv': [spike_patterns.spiking_conv],
    'GreaterOrEqual': [spike_patterns.fire],
    'MaxPool': [spike_patterns.pool, number_patterns.pool],
    'Concat': [spike_patterns.join, number_patterns.join],
    'Resize': [spike_patterns.repeat, number_patterns.repeat],
    'Cast': [spike_patterns.view],
    'Conv': [number_patterns.conv, number_patterns.stem],
    'Mul': [number_patterns.scale],
    'ReduceMean': [number_patterns.mean],
    'Add': [number_patterns.add_stream, number_patterns.add],
}


def find_layers(graph: Graph, largest_stem_weight: int) -> list[Layer]:
    """Return the layers in the order in which they can run, but for what lies between them.

    Spikes come from the image, from other spikes or from numbers, in the forms that ``hoyer-det export``
    writes; see spike_patterns.py and number_patterns.py. Whatever else there is, is left.

    Args:
        graph: The graph.
        largest_stem_weight: As the C code says.
    """
    found = Found(graph, largest_stem_weight)
    for node in graph.nodes:
        for pattern in _PATTERNS.get(node.op_type, ()):
            layers = pattern(found, node)
            if layers:
                for layer in layers:
                    found.add(layer)
                break
    return found.layers
