"""Hooks that a training or evaluation run of a spiking detector uses."""

from .pictures_hook import DetectionPicturesHook
from .regularizer_hook import HoyerRegularizerHook
from .spike_rate_hook import SpikeRateHook
from .spike_statistics_hook import SpikeStatisticsHook
from .sync_buffers_hook import SyncAllBuffersHook

__all__ = [
    'DetectionPicturesHook',
    'HoyerRegularizerHook',
    'SpikeRateHook',
    'SpikeStatisticsHook',
    'SyncAllBuffersHook',
]
