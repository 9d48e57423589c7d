"""Pre-training of the backbones: classifier and data sets."""

from .cifar import HoyerResNetCIFAR, HoyerVGGCIFAR
from .classifier import SpikingClassifier, SpikingReadout
from .crops import ObjectCropsDataset
from .datasets import ClassificationDataset, DigitsDataset, TorchvisionDataset

__all__ = [
    'ClassificationDataset',
    'DigitsDataset',
    'HoyerResNetCIFAR',
    'HoyerVGGCIFAR',
    'ObjectCropsDataset',
    'SpikingClassifier',
    'SpikingReadout',
    'TorchvisionDataset',
]
