"""Weights from elsewhere: the authors' checkpoints, conventional networks."""

from .authors import Conversion, from_authors, to_authors
from .calibration import CalibrateFromANNHook, convert_from_ann
from .centering import CenterPotentialsHook, center_potentials
from .from_ann import FromANN, map_ann
from .reading import read_checkpoint

__all__ = [
    'CalibrateFromANNHook',
    'CenterPotentialsHook',
    'Conversion',
    'FromANN',
    'center_potentials',
    'convert_from_ann',
    'from_authors',
    'map_ann',
    'read_checkpoint',
    'to_authors',
]
