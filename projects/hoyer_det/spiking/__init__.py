"""The neuron and its mathematics in pure PyTorch; knows nothing of detection."""

from .hoyer import hoyer_extremum, hoyer_square
from .lif import LIFSpike
from .neuron import HoyerSpike
from .recording import (
    check_potentials,
    record_hoyer_squares,
    record_spikes,
    spiking_layers,
    untrained_layers,
    untrained_warning,
)

__all__ = [
    'HoyerSpike',
    'LIFSpike',
    'check_potentials',
    'hoyer_extremum',
    'hoyer_square',
    'record_hoyer_squares',
    'record_spikes',
    'spiking_layers',
    'untrained_layers',
    'untrained_warning',
]
