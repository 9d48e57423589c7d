"""Registered necks built from the spiking neuron."""

from .fpn import HoyerFPN
from .ssd_neck import HoyerSSDNeck
from .yolo_neck import HoyerYOLOV3Neck

__all__ = ['HoyerFPN', 'HoyerSSDNeck', 'HoyerYOLOV3Neck']
