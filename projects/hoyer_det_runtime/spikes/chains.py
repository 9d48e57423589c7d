"""Finds layers that run together in strips, and cuts them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .layers import Layer, PoolBits, SpikingConv, StemConv
from .strips import Part, Vertical, cut

# Spikes of more bytes than this are made and read in strips, and so are never there whole.
_WHOLE_BYTES = 96 << 10
_STRIP_BYTES = 48 << 10  # of a strip, at most
_Shapes = Mapping[str, tuple[int, ...]]


@dataclass
class Chain:
    """Layers that read each other and run in strips, or a single layer.

    Attributes:
        layers: In order.
        parts: The strips of each output by name; none of a single layer.
        lines: Lines of memory of each output that is never there whole.
    """

    layers: list[Layer]
    parts: dict[str, list[Part]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


def find_chains(
    layers: Sequence[Layer], shapes: _Shapes, last_readers: Mapping[int, Sequence[str]]
) -> list[Chain]:
    """Return layers in order, together those between which spikes would take much memory.

    Args:
        layers: In the order in which they run.
        shapes: (N, C, H, W) of each value, N ignored.
        last_readers: Layer (by ``id``) that is the last to read some values: their names. None of other
            values, which somebody wants whole.
    """
    readers = Counter(name for layer in layers for name in layer.inputs)
    chains: list[Chain] = []
    for layer in layers:
        before = chains[-1].layers[-1] if chains else None
        if (
            isinstance(before, StemConv | SpikingConv | PoolBits)
            and isinstance(layer, SpikingConv | PoolBits)
            and before.output in last_readers.get(id(layer), ())
            and readers[before.output] == 1
            and shapes[before.output][2] * _line_bytes(shapes[before.output]) > _WHOLE_BYTES
        ):
            chains[-1].layers.append(layer)
        else:
            chains.append(Chain([layer]))
    for chain in chains:
        if len(chain.layers) > 1:
            _cut(chain, shapes)
    return chains


def _cut(chain: Chain, shapes: _Shapes) -> None:
    verticals = [_vertical(layer, shapes) for layer in chain.layers]
    lines, largest = verticals[-1].out_height, _STRIP_BYTES + 1
    while largest > _STRIP_BYTES:
        strips = cut(verticals, lines)
        outputs = [layer.output for layer in chain.layers]
        chain.parts = dict(zip(outputs, map(list, zip(*strips, strict=True)), strict=True))
        chain.lines = {name: max(part.lines for part in chain.parts[name]) for name in outputs[:-1]}
        if lines == 1:
            return
        largest = max(count * _line_bytes(shapes[name]) for name, count in chain.lines.items())
        lines = -(-lines // 2)


def _line_bytes(shape: tuple[int, ...]) -> int:
    channels, _, width = shape[1:]
    return 4 * width * -(-channels // 32)


def _vertical(layer: Layer, shapes: _Shapes) -> Vertical:
    geometry = layer.geometry
    sizes = geometry.kernel, geometry.stride, geometry.padding, geometry.dilation
    heights = shapes[layer.inputs[0]][2], shapes[layer.output][2]
    return Vertical(*(size[0] for size in sizes), *heights)
