"""The numbers of :mod:`hoyer_det.spiking`, faster and in less memory.

Networks use four things: :func:`norm_spike` for a norm and the neuron behind it, and the modules
:class:`FastHoyerSpike`, :class:`SpikeConv2d` and :class:`LeanMaxPool2d`. Each chooses its
implementation for the tensor at hand (``dispatch``): C on a CPU (``cpu``), Triton on CUDA (``cuda``), and
PyTorch's own operations elsewhere. Implementations take tensors and numbers and return tensors;
modules are changed by :meth:`hoyer_det.spiking.HoyerSpike.emit` alone. A reader who wants the method
can leave this folder out.
"""

from .convolution import SpikeConv2d
from .dispatch import LEVELS, plain_kernels, set_kernels
from .neuron import FastHoyerSpike, norm_spike
from .pooling import LeanMaxPool2d

__all__ = [
    'LEVELS',
    'FastHoyerSpike',
    'LeanMaxPool2d',
    'SpikeConv2d',
    'norm_spike',
    'plain_kernels',
    'set_kernels',
]
