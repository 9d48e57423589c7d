"""Registered necks built from the spiking neuron."""

from .ssd_neck import HoyerSSDNeck

__all__ = ['HoyerSSDNeck']
