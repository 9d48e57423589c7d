"""Bytes that a layer moves for one image, under a simple and stated model of memory."""

from dataclasses import dataclass

from .energy import NUMBER_FORMATS
from .operations import LayerOperations


@dataclass(frozen=True)
class Traffic:
    """Bytes moved for one image: weights and inputs read once, outputs written once.

    Attributes:
        weights: Bytes of weights and biases read.
        reads: Bytes of inputs read.
        writes: Bytes of outputs written.
    """

    weights: float
    reads: float
    writes: float


def traffic(layer: LayerOperations, number_format: str, spiking: bool = True) -> Traffic:
    """Return what a layer moves for one image.

    Each weight is read once an image, each input once a call, and each output is written once, after
    norm, pooling and neuron, which are taken to be part of the layer before them. Inputs verified to
    be 0 or 1 and outputs of a neuron take 1 bit; everything else takes the bits of the number format.
    A potential lives for the one time step only and is never stored. The sum of two feature maps reads
    one of them, the other comes from the layer before, and is written.

    Args:
        layer: Operations as counted.
        number_format: ``'fp32'`` or ``'int8'``.
        spiking: Whether spikes take 1 bit; False for a twin of the same shape whose activations are
            all numbers.
    """
    bits = NUMBER_FORMATS[number_format]
    spike_bits = 1 if spiking else bits
    read_bits = spike_bits if layer.input_kind == 'binary' else bits
    writes = layer.written_spikes * spike_bits + layer.written_real * bits
    return Traffic(
        layer.weights * bits / 8,
        layer.inputs * read_bits / 8 / layer.images,
        writes / 8 / layer.images,
    )
