"""Measures how often the neurons of each layer fire during evaluation."""

from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..spiking import spiking_layers


@HOOKS.register_module()
class SpikeRateHook(Hook):
    """Logs the spike rate of every ``HoyerSpike`` layer after validation and after testing.

    The spike rate is the share of a layer's outputs that are 1, over all images of the data set. The
    rates go to the log, a line a layer, and as scalars ``spike_rate/<layer>`` to every visual backend.
    """

    def __init__(self) -> None:
        self._counts: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def before_val_epoch(self, runner: Runner) -> None:
        """Start counting."""
        self._start(runner)

    def before_test_epoch(self, runner: Runner) -> None:
        """Start counting."""
        self._start(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Stop counting and log."""
        self._report(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Stop counting and log."""
        self._report(runner)

    def _start(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._counts = {}
        for name, layer in spiking_layers(model).items():
            self._handles.append(layer.register_forward_hook(self._counter(name)))

    def _counter(self, name: str) -> Any:
        def count(module: nn.Module, inputs: tuple, spikes: Tensor) -> None:
            # In float64: half precision (AMP) could not even hold the number of neurons.
            neurons = spikes.new_tensor(spikes.numel(), dtype=torch.float64)
            both = torch.stack([spikes.sum(dtype=torch.float64), neurons])
            self._counts[name] = self._counts[name] + both if name in self._counts else both

        return count

    def _report(self, runner: Runner) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if not self._counts:
            return
        counts = torch.stack(list(self._counts.values()))
        all_reduce(counts)
        rates = dict(zip(self._counts, (counts[:, 0] / counts[:, 1]).tolist(), strict=True))
        spikes, neurons = counts.sum(0).tolist()
        width = max(map(len, [*rates, 'all neurons']))
        lines = [f'{name:<{width}}  {rate:6.1%}' for name, rate in rates.items()]
        lines.append(f'{"all neurons":<{width}}  {spikes / neurons:6.1%}')
        runner.logger.info('Spike rate by layer:\n' + '\n'.join(lines))
        scalars = {f'spike_rate/{name}': rate for name, rate in rates.items()}
        runner.visualizer.add_scalars(scalars, step=runner.iter)
