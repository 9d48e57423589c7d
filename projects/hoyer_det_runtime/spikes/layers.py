"""The layers that the engine runs itself, as they are found in a graph."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Geometry:
    """Kernel, stride, padding before and behind, and dilation, each (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    end_padding: tuple[int, int]
    dilation: tuple[int, int]


@dataclass
class Layer:
    """What all layers have.

    Attributes:
        inputs: Names of the tensors that it reads.
        output: Name of the tensor that it makes.
        replaces: Outputs of the nodes that it stands for.
    """

    inputs: list[str]
    output: str
    replaces: set[str] = field(default_factory=set, kw_only=True)


@dataclass
class StemConv(Layer):
    """A convolution of the image, int8 (M, C, h, w), and its neuron: fires where a sum reaches ``level``."""

    weight: np.ndarray
    level: np.ndarray
    zero: int
    geometry: Geometry
    flip: np.ndarray


@dataclass
class SpikingConv(Layer):
    """A convolution of spikes, int8 (M, C, h, w), and its neuron: fires where a sum reaches ``level``."""

    weight: np.ndarray
    level: np.ndarray
    geometry: Geometry
    flip: np.ndarray


@dataclass
class RealConv(Layer):
    """A convolution of spikes whose sums are read as numbers.

    ``step`` times the sums of ``weight`` (int8 or float32), plus ``bias``, plus the tensor ``stream``.
    """

    weight: np.ndarray
    step: np.ndarray
    bias: np.ndarray
    geometry: Geometry
    stream: str | None = None


@dataclass
class RealStem(Layer):
    """A convolution of the image less ``zero``, int8 (M, C, h, w): ``step`` times its sums, plus ``bias``."""

    weight: np.ndarray
    step: np.ndarray
    bias: np.ndarray
    zero: int
    geometry: Geometry


@dataclass
class PoolNumbers(Layer):
    """Max pooling of numbers, then times ``scale`` of each channel."""

    geometry: Geometry
    scale: np.ndarray


@dataclass
class JoinNumbers(Layer):
    """Numbers of several tensors joined channel behind channel."""


@dataclass
class RepeatNumbers(Layer):
    """Nearest-neighbour up-sampling of numbers by whole factors (vertical, horizontal)."""

    scale: tuple[int, int]


@dataclass
class AddNumbers(Layer):
    """The sum of two tensors."""


@dataclass
class MeanNumbers(Layer):
    """The means of groups of ``size`` channels that lie side by side."""

    size: int


@dataclass
class PoolBits(Layer):
    """Max pooling of spikes, turned around afterwards where ``flip`` is 1."""

    geometry: Geometry
    flip: np.ndarray


@dataclass
class JoinBits(Layer):
    """Spikes of several tensors joined channel behind channel."""


@dataclass
class RepeatBits(Layer):
    """Nearest-neighbour up-sampling of spikes by whole factors (vertical, horizontal)."""

    scale: tuple[int, int]


@dataclass
class Fire(Layer):
    """Spikes of numbers: fires where one reaches ``level``, turned around where ``flip`` is 1."""

    level: np.ndarray
    flip: np.ndarray


BITS = (StemConv, SpikingConv, PoolBits, JoinBits, RepeatBits, Fire)
