"""Measures how often the neurons of each layer fire during evaluation."""

from contextlib import ExitStack

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from ..spiking import HoyerSpike, record_spikes, spiking_layers, untrained_warning
from .runner_parts import detector


@HOOKS.register_module()
class SpikeRateHook(Hook):
    """Logs the spike rate of every ``HoyerSpike`` layer after validation and after testing.

    The spike rate is the share of a layer's outputs that are 1, over all images of the data set. The
    rates go to the log, a line a layer, and as scalars ``spike_rate/<layer>`` to every visual backend;
    ``spike_rate`` is that of all neurons together.
    Layers that have no firing level from training are named in a warning.
    """

    def __init__(self) -> None:
        self._counts: dict[str, Tensor] = {}
        self._recording = ExitStack()

    def before_val_epoch(self, runner: Runner) -> None:
        """Start counting."""
        model = detector(runner)
        warning = untrained_warning(model)
        if warning:
            runner.logger.warning(warning)
        # Every layer, as all processes must add up the same ones, whatever ran in each.
        self._counts = {
            name: torch.zeros(2, dtype=torch.float64, device=layer.threshold.device)
            for name, layer in spiking_layers(model).items()
        }
        self._recording.close()  # a run that failed may have left something
        self._recording.enter_context(record_spikes(model, self._count))

    before_test_epoch = before_val_epoch

    def _count(self, name: str, layer: HoyerSpike, spikes: Tensor, square: Tensor | None) -> None:
        # In float64: half precision (AMP) could not even hold the number of neurons.
        neurons = spikes.new_tensor(spikes.numel(), dtype=torch.float64)
        self._counts[name] += torch.stack([spikes.sum(dtype=torch.float64), neurons])

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Stop counting and log."""
        self._recording.close()
        if not self._counts:
            return
        counts = torch.stack(list(self._counts.values()))
        all_reduce(counts)
        spikes, neurons = counts.sum(0).tolist()
        if not neurons:
            return
        rates = {
            name: fired / total
            for name, (fired, total) in zip(self._counts, counts.tolist(), strict=True)
            if total
        }
        width = max(map(len, [*rates, 'all neurons']))
        lines = [f'{name:<{width}}  {rate:6.1%}' for name, rate in rates.items()]
        lines.append(f'{"all neurons":<{width}}  {spikes / neurons:6.1%}')
        runner.logger.info('Spike rate by layer:\n' + '\n'.join(lines))
        scalars = {f'spike_rate/{name}': rate for name, rate in rates.items()}
        scalars['spike_rate'] = spikes / neurons
        runner.visualizer.add_scalars(scalars, step=runner.iter)

    after_test_epoch = after_val_epoch
