"""Warns of one neuron on unlike inputs, such as the feature levels of a dense head."""

from contextlib import ExitStack
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from ..spiking import HoyerSpike, record_spikes, spiking_layers
from .runner_parts import detector


@HOOKS.register_module()
class SharedNeuronHook(Hook):
    """Warns of a neuron that runs several times in a training step, at extrema that differ.

    Training fires at the extremum of each input, evaluation at their one running average, which then
    fits none of them. Looked at is the first step of a run.

    Args:
        ratio: Largest extremum over the smallest from which it warns.

    Raises:
        ValueError: If the ratio is not above 1.
    """

    def __init__(self, ratio: float = 2.0) -> None:
        if not ratio > 1:
            raise ValueError(f'SharedNeuronHook: ratio must be above 1, got {ratio}')
        self.ratio = ratio
        self._recording = ExitStack()

    def before_train(self, runner: Runner) -> None:
        """Look at the first step."""
        model = detector(runner)
        layers = spiking_layers(model).items()
        self._averages = {name: layer.running_extremum.clone() for name, layer in layers}
        self._extrema: dict[str, list[float]] = {name: [] for name in self._averages}
        self._recording.enter_context(record_spikes(model, self._note))

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Warn, once, and look no further."""
        self._recording.close()
        for name, extrema in self._extrema.items():
            if len(extrema) > 1 and max(extrema) > self.ratio * min(extrema):
                runner.logger.warning(
                    f'{name} runs {len(extrema)} times in a training step, at extrema from '
                    f'{min(extrema):.2g} to {max(extrema):.2g}. Evaluation fires at their average, '
                    "which fits none. model=dict(type='SpikingDetector', detector=..., "
                    f'parts=[{name.split(".")[0]!r}]) makes a neuron for each'
                )
        self._extrema = {}

    def after_train(self, runner: Runner) -> None:
        """Stop looking if there was no step."""
        self._recording.close()

    def _note(self, name: str, layer: HoyerSpike, spikes: Tensor, square: Tensor | None) -> None:
        """Keep the extremum by which the running average has just moved."""
        if square is None or layer.extremum == 'fixed':
            return
        before, now = self._averages[name], layer.running_extremum.clone()
        self._averages[name] = now
        if now.shape != before.shape:  # channels that the first input told
            return
        moved = now != before
        if moved.any():
            extremum = before + (now - before) / layer.momentum
            self._extrema[name].append(extremum[moved].mean().item())
