"""Which of MMDetection's detector families take a spiking backbone, found out by trying."""

from .families import FAMILIES, Family
from .page import page
from .trial import CONFIGS, Result, put_hoyer_resnet_in, try_family

__all__ = [
    'CONFIGS',
    'FAMILIES',
    'Family',
    'Result',
    'page',
    'put_hoyer_resnet_in',
    'try_family',
]
