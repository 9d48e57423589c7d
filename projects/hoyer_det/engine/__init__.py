"""Hooks, and a runner, that a training or evaluation run of a spiking detector uses."""

from .dataset_runner import DatasetRunner
from .distillation_hook import DistillationHook
from .finite_hook import CheckFiniteHook
from .input_size_hook import InputSizeHook
from .neuron_settings import NeuronSettingsHook
from .pending_validation_hook import PendingValidationHook
from .pictures_hook import DetectionPicturesHook
from .regularizer_hook import HoyerRegularizerHook
from .seeding import SeededBatchSampler, SeedIterationsHook
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
    'InputSizeHook',
    'NeuronSettingsHook',
    'PendingValidationHook',
    'SeedIterationsHook',
    'SeededBatchSampler',
    'SharedNeuronHook',
    'SpikeRateHook',
    'SpikeStatisticsHook',
    'SyncAllBuffersHook',
]
