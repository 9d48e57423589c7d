"""Hooks, and a runner, that a training or evaluation run of a spiking detector uses."""

from .dataset_runner import DatasetRunner
from .distillation_hook import DistillationHook
from .finite_hook import CheckFiniteHook
from .neuron_settings import NeuronSettingsHook
from .pictures_hook import DetectionPicturesHook
from .regularizer_hook import HoyerRegularizerHook
from .shared_neuron_hook import SharedNeuronHook
from .spike_rate_hook import SpikeRateHook
from .spike_statistics_hook import SpikeStatisticsHook
from .storage import AtomicLocalBackend
from .sync_buffers_hook import SyncAllBuffersHook

__all__ = [
    'AtomicLocalBackend',
    'CheckFiniteHook',
    'DatasetRunner',
    'DetectionPicturesHook',
    'DistillationHook',
    'HoyerRegularizerHook',
    'NeuronSettingsHook',
    'SharedNeuronHook',
    'SpikeRateHook',
    'SpikeStatisticsHook',
    'SyncAllBuffersHook',
]
