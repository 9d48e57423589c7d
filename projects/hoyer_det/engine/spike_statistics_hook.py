"""Logs what the neurons of each layer do while a detector is trained."""

from contextlib import ExitStack
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ..spiking import HoyerSpike, hoyer_square, spiking_layers


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

    The hook listens during one iteration of each interval and in no other, so the steps in between cost
    nothing. In a distributed run the numbers are those of the main process alone.

    Args:
        interval: Iterations between two measurements; that of the ``LoggerHook`` by default.

    Raises:
        ValueError: If the interval is less than 1.
    """

    def __init__(self, interval: int | None = None) -> None:
        if interval is not None and interval < 1:
            raise ValueError(f'SpikeStatisticsHook: interval must be at least 1, got {interval}')
        self.interval = interval
        self._listening = ExitStack()
        self._sums: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        """Take over the interval of the log."""
        if self.interval is None:
            intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
            self.interval = min(intervals, default=50)

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Start listening where this iteration is one to measure."""
        self._stop()  # an iteration that failed may have left something
        if self.every_n_train_iters(runner, self.interval) and is_main_process():
            for name, layer in spiking_layers(self._model(runner)).items():
                self._listening.callback(layer.register_forward_hook(self._listener(name)).remove)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Stop listening and log what was heard."""
        sums, self._sums = self._sums, {}
        self._stop()
        if not sums:
            return
        layers = spiking_layers(self._model(runner))
        rows = []
        for name, (spikes, neurons, square) in sums.items():
            layer = layers[name]
            threshold = layer.threshold.abs().double()
            rows.append(torch.stack([spikes / neurons, threshold, _extremum(layer), square]))
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
        """Stop listening."""
        self._stop()

    @staticmethod
    def _model(runner: Runner) -> nn.Module:
        return runner.model.module if is_model_wrapper(runner.model) else runner.model

    def _stop(self) -> None:
        self._listening.close()
        self._sums = {}

    def _listener(self, name: str) -> Any:
        @torch.no_grad()
        def listen(module: HoyerSpike, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
            # Gradient checkpointing runs the forward pass a second time, inside the backward pass.
            if not module.training or torch._C._current_graph_task_id() != -1:
                return
            clip = module.threshold.abs().to(inputs[0].dtype)
            clipped = torch.clamp(inputs[0], torch.zeros_like(clip), clip)
            # In float64: half precision (AMP) could not even hold the number of neurons.
            row = torch.stack(
                [
                    spikes.sum(dtype=torch.float64),
                    spikes.new_tensor(spikes.numel(), dtype=torch.float64),
                    hoyer_square(clipped).double(),
                ]
            )
            self._sums[name] = self._sums[name] + row if name in self._sums else row

        return listen


def _extremum(layer: HoyerSpike) -> Tensor:
    """Return the mean over channels of the averaged extremum, 1 where there never was one."""
    weight = layer.running_weight.double()
    average = layer.running_extremum.double() / weight.masked_fill(weight == 0, 1.0)
    return torch.where(weight > 0, average, 1.0).mean()
