"""Weights from elsewhere: the authors' checkpoints, conventional networks."""

from .authors import Conversion, from_authors, to_authors
from .calibration import CalibrateFromANNHook, convert_from_ann
from .from_ann import FromANN, map_ann
from .reading import read_checkpoint

__all__ = [
    'CalibrateFromANNHook',
    'Conversion',
    'FromANN',
    'convert_from_ann',
    'from_authors',
    'map_ann',
    'read_checkpoint',
    'to_authors',
]
