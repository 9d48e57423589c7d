"""Layers that run in turns, a strip of lines each, so that what lies between them is never there whole."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Vertical:
    """What a layer reads and makes from top to bottom.

    Attributes:
        kernel, stride, padding, dilation: Of its window.
        height: Lines of its input.
        out_height: Lines of its output.
    """

    kernel: int
    stride: int
    padding: int
    dilation: int
    height: int
    out_height: int

    def first_read(self, line: int) -> int:
        """Return the first line of the input that windows from an output line on see."""
        return max(0, line * self.stride - self.padding)

    def end_read(self, end: int) -> int:
        """Return the line behind the last one of the input that windows before an output line see."""
        last = (end - 1) * self.stride - self.padding + (self.kernel - 1) * self.dilation
        return min(last + 1, self.height)


@dataclass(frozen=True)
class Part:
    """A layer's work for one strip.

    Attributes:
        first: First line of the output that it makes.
        end: The line behind the last one.
        source: Line at which the memory of its input begins.
        target: Line at which the memory of its output begins.
        kept: Lines of the output that are there already and begin it.
        kept_from: Where they lie in its memory until then, in lines.
    """

    first: int
    end: int
    source: int = 0
    target: int = 0
    kept: int = 0
    kept_from: int = 0

    @property
    def lines(self) -> int:
        """Lines of memory that the output needs."""
        return self.end - self.target


def cut(layers: Sequence[Vertical], lines: int) -> list[list[Part]]:
    """Cut layers that read each other into strips.

    Args:
        layers: In order; each reads the output of the one before.
        lines: Lines of the last output that a strip makes.

    Returns:
        The strips in order, each with a part for each layer. A strip makes the lines of each output that are
        read in it and not there yet, and keeps those of before that are read again.
    """
    made, begins = [0] * len(layers), [0] * len(layers)
    strips = []
    while made[-1] < layers[-1].out_height:
        ends = [min(made[-1] + lines, layers[-1].out_height)]
        for layer, before in zip(layers[:0:-1], made[-2::-1], strict=True):
            ends.insert(0, max(before, layer.end_read(ends[0])))
        parts: list[Part] = []
        for i, end in enumerate(ends):
            last = i + 1 == len(layers)
            low = 0 if last else min(layers[i + 1].first_read(made[i + 1]), made[i])
            kept = 0 if last else made[i] - low
            source = parts[-1].target if parts else 0
            parts.append(Part(made[i], end, source, low, kept, low - begins[i]))
        strips.append(parts)
        made, begins = ends, [part.target for part in parts]
    return strips
