"""The neuron and its mathematics in pure PyTorch; knows nothing of detection."""

from .fused.bits import keeps_bits, mark_spikes, spikes_as_bits
from .fused.convolution import convolve
from .fused.switch import fused_path, plain_path
from .hoyer import hoyer_extremum, hoyer_square
from .neuron import HoyerSpike
from .recording import check_potentials, record_hoyer_squares, spiking_layers

__all__ = [
    'HoyerSpike',
    'check_potentials',
    'convolve',
    'fused_path',
    'hoyer_extremum',
    'hoyer_square',
    'keeps_bits',
    'mark_spikes',
    'plain_path',
    'record_hoyer_squares',
    'spikes_as_bits',
    'spiking_layers',
]
