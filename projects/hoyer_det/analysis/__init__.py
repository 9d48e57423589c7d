"""What a model costs: spikes, operations, memory, energy, and pictures of them."""

from .energy import ENERGY_TABLES, EnergyTable, load_energy_table
from .measure import Measurement, build_dataset, load_detector, measure
from .memory import Traffic, traffic
from .noise import evaluate, noise_curve, potential_noise
from .operations import LayerOperations, OperationCounter
from .potentials import LayerPotentials, PotentialRecorder
from .spikes import LayerSpikes, SpikeRecorder
from .twins import Cost, Network, layer_cost, network_cost

__all__ = [
    'ENERGY_TABLES',
    'Cost',
    'EnergyTable',
    'LayerOperations',
    'LayerPotentials',
    'LayerSpikes',
    'Measurement',
    'Network',
    'OperationCounter',
    'PotentialRecorder',
    'SpikeRecorder',
    'Traffic',
    'build_dataset',
    'evaluate',
    'layer_cost',
    'load_detector',
    'load_energy_table',
    'measure',
    'network_cost',
    'noise_curve',
    'potential_noise',
    'traffic',
]
