"""Pre-training of the backbones: classifier, data sets, metric."""

from .cifar import HoyerResNetCIFAR, HoyerVGGCIFAR
from .classifier import SpikingClassifier, SpikingReadout
from .crops import ObjectCropsDataset
from .datasets import ClassificationDataset, DigitsDataset, TorchvisionDataset
from .metric import TopKAccuracy

__all__ = [
    'ClassificationDataset',
    'DigitsDataset',
    'HoyerResNetCIFAR',
    'HoyerVGGCIFAR',
    'ObjectCropsDataset',
    'SpikingClassifier',
    'SpikingReadout',
    'TopKAccuracy',
    'TorchvisionDataset',
]
