"""Pre-training of the backbones: classifier, data sets, metric."""

from .cifar import HoyerResNetCIFAR, HoyerVGGCIFAR
from .classifier import SpikingClassifier, SpikingReadout
from .datasets import ClassificationDataset, DigitsDataset, TorchvisionDataset
from .metric import TopKAccuracy

__all__ = [
    'ClassificationDataset',
    'DigitsDataset',
    'HoyerResNetCIFAR',
    'HoyerVGGCIFAR',
    'SpikingClassifier',
    'SpikingReadout',
    'TopKAccuracy',
    'TorchvisionDataset',
]
