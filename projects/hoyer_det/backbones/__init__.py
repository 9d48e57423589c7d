"""Registered backbones built from the spiking neuron."""

from .resnet import HoyerResNet
from .vgg import HoyerVGG

__all__ = ['HoyerResNet', 'HoyerVGG']
