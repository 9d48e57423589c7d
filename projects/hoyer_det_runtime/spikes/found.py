"""What was found in a graph so far, and how windows are read off its nodes."""

from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto, TensorProto

from .graph import Graph, attributes
from .layers import BITS, Geometry, Layer

# Lists of active inputs have 16 bits for the place of a row of weights, whatever their kind: convolution.h.
_LARGEST_WINDOW = 127


@dataclass
class Found:
    """Layers of a graph in order.

    Attributes:
        graph: The graph.
        largest_stem_weight: Largest magnitude of weights that the C code multiplies with an image.
        layers: What the engine runs itself.
        bits: Names of tensors of spikes that it makes.
        views: Names of the same as float: the spikes.
        numbers: Names of other tensors that it makes: their layer.
    """

    graph: Graph
    largest_stem_weight: int
    layers: list[Layer] = field(default_factory=list)
    bits: set[str] = field(default_factory=set)
    views: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Layer] = field(default_factory=dict)

    def add(self, layer: Layer) -> None:
        """Add a layer."""
        self.layers.append(layer)
        if isinstance(layer, BITS):
            self.bits.add(layer.output)
        else:
            self.numbers[layer.output] = layer

    def remove(self, layer: Layer) -> None:
        """Take out a layer of numbers, which another takes up."""
        self.layers.remove(layer)
        del self.numbers[layer.output]

    def is_image(self, name: str) -> bool:
        """Whether a value is an input of the graph, of bytes."""
        return name in self.graph.inputs and self.graph.types[name] == TensorProto.UINT8

    def fits_stem(self, weight: np.ndarray, geometry: Geometry) -> bool:
        """Whether the C code multiplies weights (M, C, h, w) with an image."""
        largest = np.abs(weight.astype(np.int16)).max(initial=0)
        small = weight.shape[1] <= 4 and geometry.dilation == (1, 1)
        return weight.dtype == np.int8 and small and largest <= self.largest_stem_weight

    def fits_lists(self, weight: np.ndarray) -> bool:
        """Whether the C code adds weights (M, C, h, w) of spikes."""
        return weight.shape[2] * weight.shape[3] <= _LARGEST_WINDOW

    def channel_values(self, name: str, channels: int) -> np.ndarray | None:
        """Return a constant as one value for each of so many channels, None if it is none."""
        value = self.graph.constants.get(name)
        if value is None or value.size not in (1, channels):
            return None
        if value.size > 1 and value.shape[-3:] != (channels, 1, 1):
            return None
        return np.broadcast_to(value.ravel(), channels)


def geometry_of(node: NodeProto, sides: tuple[int, ...] | None = None) -> Geometry | None:
    """Return the geometry of a convolution or pooling in two dimensions, None for another.

    Args:
        node: The node.
        sides: Height and width of the weights of a convolution.
    """
    given = attributes(node)
    kernel = tuple(given.get('kernel_shape', sides or ()))
    if sides is not None and kernel != sides:
        return None
    pads = given.get('pads', [0, 0, 0, 0])
    if len(kernel) != 2 or given.get('auto_pad', 'NOTSET') != 'NOTSET' or len(pads) != 4:
        return None
    if given.get('group', 1) != 1 or given.get('storage_order'):
        return None
    stride, dilation = given.get('strides', [1, 1]), given.get('dilations', [1, 1])
    if min(*kernel, *stride, *dilation) < 1 or min(pads) < 0:
        return None
    if node.op_type == 'MaxPool' and (max(dilation) > 1 or len(node.output) > 1):
        return None
    outside = any(pad >= side for pad, side in zip(pads, 2 * kernel, strict=True))
    if node.op_type == 'MaxPool' and outside:  # a window may see nothing
        return None
    return Geometry(kernel, tuple(stride), tuple(pads[:2]), tuple(pads[2:]), tuple(dilation))


def whole_factors(found: Found, node: NodeProto) -> tuple[int, int] | None:
    """Return how often ``Resize`` repeats each place (vertical, horizontal), None where it does else."""
    given, shapes = attributes(node), found.graph.shapes
    before, after = (shapes.get(name, ()) for name in (node.input[0], node.output[0]))
    if given.get('mode', 'nearest') != 'nearest' or not len(before) == len(after) == 4:
        return None
    if before[:2] != after[:2] or 0 in before[1:] or any(after[i] % before[i] for i in (2, 3)):
        return None
    factors = after[2] // before[2], after[3] // before[3]
    # Sides are rounded, but places are found by the scales as they are.
    scales = found.graph.constants.get(node.input[2]) if len(node.input) > 2 else None
    by_sizes = len(node.input) > 3 and given.get('keep_aspect_ratio_policy', 'stretch') == 'stretch'
    if not by_sizes and (scales is None or scales.tolist() != [1, 1, *factors]):
        return None
    # With whole factors, both of these take the place above and to the left.
    way = given.get('coordinate_transformation_mode', 'half_pixel')
    rounding = given.get('nearest_mode', 'round_prefer_floor')
    floors = way == 'asymmetric' and rounding == 'floor'
    rounds = way == 'half_pixel' and rounding.startswith('round')
    if not floors and not rounds:
        return None
    return factors
