"""What a model costs: spikes, operations, memory, energy, and pictures of them.

Example:
    >>> analysis = analyze('config.py', 'epoch_24.pth', compare=[('config.py', 'relu.pth', 'relu')])
    >>> files = write_report(analysis, 'report')
"""

from .energy import (
    ENERGY_TABLES,
    Cost,
    EnergyTable,
    Network,
    Traffic,
    layer_cost,
    load_energy_table,
    network_cost,
    traffic,
)
from .measure import Measurement, build_dataset, measure
from .neurons import NeuronRecorder, NeuronStatistics
from .noise import evaluate, noise_curve, potential_noise
from .observation import change_potentials, observe_neurons
from .operations import LayerOperations, OperationCounter
from .report import write_report
from .run import analyze
from .tables import Analysis

__all__ = [
    'ENERGY_TABLES',
    'Analysis',
    'Cost',
    'EnergyTable',
    'LayerOperations',
    'Measurement',
    'Network',
    'NeuronRecorder',
    'NeuronStatistics',
    'OperationCounter',
    'Traffic',
    'analyze',
    'build_dataset',
    'change_potentials',
    'evaluate',
    'layer_cost',
    'load_energy_table',
    'measure',
    'network_cost',
    'noise_curve',
    'observe_neurons',
    'potential_noise',
    'traffic',
    'write_report',
]
