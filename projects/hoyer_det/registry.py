"""Makes the neuron known as an activation wherever MMDetection or mmcv takes an ``act_cfg``."""

from mmengine.registry import MODELS

from .kernels import FastHoyerSpike, SpikeConv2d
from .spiking import LIFSpike

MODELS.register_module('HoyerSpike', module=FastHoyerSpike)
MODELS.register_module(module=SpikeConv2d)
MODELS.register_module(module=LIFSpike)
