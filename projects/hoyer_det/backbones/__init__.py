"""Registered backbones built from the spiking neuron."""

from .vgg import HoyerVGG

__all__ = ['HoyerVGG']
