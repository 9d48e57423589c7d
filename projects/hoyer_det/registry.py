"""Makes the neuron known as an activation wherever MMDetection or mmcv takes an ``act_cfg``."""

from mmengine.registry import MODELS

from .spiking import HoyerSpike

MODELS.register_module(module=HoyerSpike)
