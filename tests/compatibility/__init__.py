"""Test bench: which of MMDetection's detector families take a spiking backbone, found by trying."""

from .families import FAMILIES, Family
from .trial import CONFIGS, SIDE, Result, put_hoyer_resnet_in, shipped_model, try_family

__all__ = [
    'CONFIGS',
    'FAMILIES',
    'SIDE',
    'Family',
    'Result',
    'put_hoyer_resnet_in',
    'shipped_model',
    'try_family',
]
