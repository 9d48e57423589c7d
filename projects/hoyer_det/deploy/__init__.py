"""From a trained detector to a network for inference."""

from .fold import FoldedLayer, fold
from .fold_norms import SignFlip, check_conv_norm_fusion, fold_norms
from .levels import FiringLevel
from .rounded_conv import RoundedConv2d

__all__ = [
    'FiringLevel',
    'FoldedLayer',
    'RoundedConv2d',
    'SignFlip',
    'check_conv_norm_fusion',
    'fold',
    'fold_norms',
]
