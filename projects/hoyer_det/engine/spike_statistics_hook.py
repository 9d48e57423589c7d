"""Logs what the neurons of each layer do while a detector is trained."""

from contextlib import ExitStack
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from ..spiking import HoyerSpike, record_spikes, spiking_layers
from .runner_parts import detector, log_interval


@HOOKS.register_module()
class SpikeStatisticsHook(Hook):
    r"""Logs spike rate, threshold, extremum and Hoyer square of every ``HoyerSpike`` layer in training.

    They go as scalars to every visual backend (TensorBoard, files, ...):

    - ``train_spike_rate/<layer>``: share of the layer's neurons that fired on this batch;
    - ``threshold/<layer>``: clip threshold :math:`|v|` in the units of the potential;
    - ``extremum/<layer>``: running average of the Hoyer extremum :math:`E` at which the layer would fire
      in evaluation, the mean over channels where there is one a channel;
    - ``hoyer_square/<layer>``: Hoyer square :math:`H` of the clipped potentials of this batch, summed over
      the applications of the layer, as the regularizer adds it up.

    The hook observes one iteration of each interval and no other, so the steps in between cost nothing.
    In a distributed run the numbers are those of the main process alone.

    Args:
        interval: Iterations between two measurements; that of the ``LoggerHook`` by default.

    Raises:
        ValueError: If the interval is less than 1.
    """

    def __init__(self, interval: int | None = None) -> None:
        if interval is not None and interval < 1:
            raise ValueError(f'SpikeStatisticsHook: interval must be at least 1, got {interval}')
        self.interval = interval
        self._recording = ExitStack()
        self._sums: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        """Take over the interval of the log."""
        if self.interval is None:
            self.interval = log_interval(runner)

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Start observing where this iteration is one to measure."""
        self._stop()  # an iteration that failed may have left something
        if self.every_n_train_iters(runner, self.interval) and is_main_process():
            self._recording.enter_context(record_spikes(detector(runner), self._observe))

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Stop observing and log."""
        sums, self._sums = self._sums, {}
        self._stop()
        if not sums:
            return
        layers = spiking_layers(detector(runner))
        rows = []
        for name, (spikes, neurons, square) in sums.items():
            layer = layers[name]
            threshold = layer.threshold.abs().double()
            rows.append(
                torch.stack(
                    [spikes / neurons, threshold, layer.average_extremum().double().mean(), square]
                )
            )
        # One transfer from the device for all layers.
        values = torch.stack(rows).detach().cpu().tolist()
        scalars = {
            f'{quantity}/{name}': value
            for name, row in zip(sums, values, strict=True)
            for quantity, value in zip(
                ('train_spike_rate', 'threshold', 'extremum', 'hoyer_square'), row, strict=True
            )
        }
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        """Stop observing."""
        self._stop()

    def _stop(self) -> None:
        self._recording.close()
        self._sums = {}

    @torch.no_grad()
    def _observe(self, name: str, layer: HoyerSpike, spikes: Tensor, square: Tensor | None) -> None:
        if square is None:  # a frozen layer
            return
        # In float64: half precision (AMP) could not even hold the number of neurons.
        fired = spikes.sum(dtype=torch.float64)
        neurons = spikes.new_tensor(spikes.numel(), dtype=torch.float64)
        row = torch.stack([fired, neurons, square.double()])
        self._sums[name] = self._sums[name] + row if name in self._sums else row
