"""Detectors made spiking by config alone."""

from .conversion import ACTIVATIONS, Activation, convert_activations
from .forward_trace import ForwardTrace, trace_forward
from .per_call import SpikePerCall
from .spiking_detector import SpikingDetector
from .time_steps import MeanOverTime, RepeatInTime

__all__ = [
    'ACTIVATIONS',
    'Activation',
    'ForwardTrace',
    'MeanOverTime',
    'RepeatInTime',
    'SpikePerCall',
    'SpikingDetector',
    'convert_activations',
    'trace_forward',
]
