"""Detectors made spiking by config alone."""

from .conversion import Activation, convert_activations
from .per_call import SpikePerCall
from .spiking_detector import SpikingDetector

__all__ = ['Activation', 'SpikePerCall', 'SpikingDetector', 'convert_activations']
