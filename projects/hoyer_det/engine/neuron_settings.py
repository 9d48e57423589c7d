"""Keeps the settings of the neurons with the weights that were trained with them."""

import logging
from collections.abc import Mapping
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from ..spiking import spiking_layers
from ..weights.reading import pretrained_modules, read_checkpoint
from .runner_parts import detector

# What decides when a neuron fires and what it learns; kept in a checkpoint under meta.neurons.
_SETTINGS = (
    'extremum',
    'extremum_scale',
    'saturated',
    'surrogate_window',
    'surrogate_height',
)
# What evaluation reads: the others act through the running averages alone.
_EVALUATED = ('extremum', 'extremum_scale')

Neurons = Mapping[str, Mapping[str, Any]]


def neuron_settings(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the settings of every ``HoyerSpike`` of a model by its dotted name, as plain data."""
    return {
        name: {key: getattr(layer, key) for key in _SETTINGS}
        for name, layer in spiking_layers(model).items()
    }


def settings_that_differ(
    stored: Neurons, model: nn.Module, prefix: str = '', evaluation: bool = False
) -> list[str]:
    """Compare the neurons that a checkpoint was trained with to those of a model.

    Args:
        stored: The entry ``meta.neurons`` of a checkpoint, possibly empty.
        model: Model that takes the weights.
        prefix: Of the names in the checkpoint, with the dot.
        evaluation: Whether only settings that evaluation reads are compared.

    Returns:
        One phrase for each setting that differs, with both values and the layers.
    """
    found: dict[tuple, list[str]] = {}
    for name, own in neuron_settings(model).items():
        theirs = stored.get(prefix + name, {})
        for key in _EVALUATED if evaluation else _SETTINGS:
            if key in theirs and theirs[key] != own[key]:
                found.setdefault((key, theirs[key], own[key]), []).append(name)
    return [
        f'{key}={theirs!r} there, {own!r} here, in {len(names)} layers (first: {names[0]})'
        for (key, theirs, own), names in found.items()
    ]


@HOOKS.register_module()
class NeuronSettingsHook(Hook):
    """Writes the neurons' settings into checkpoints, and warns where loaded weights had others.

    A firing level that was trained with ``saturated='exclude'`` moves as soon as a neuron with ``'clip'``
    goes on training, and nothing else would tell. Looked at are ``load_from``, ``--resume`` and every
    ``init_cfg=dict(type='Pretrained', ...)``; that the whole network starts from one without spiking neurons
    is said as well. Checkpoints without the settings, such as those of older
    versions, are taken as they are.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the settings under ``meta.neurons``."""
        checkpoint.setdefault('meta', {})['neurons'] = neuron_settings(detector(runner))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare with the settings in a checkpoint that the runner loads."""
        stored, model = (checkpoint.get('meta') or {}).get('neurons'), detector(runner)
        if stored == {} and spiking_layers(model):
            print_log(
                f'{runner._load_from}: is of a network without spiking neurons. Thresholds and running '
                'extrema begin anew, uncalibrated (docs/pretrained_weights.md)',
                logger='current',
                level=logging.WARNING,
            )
        _warn(str(runner._load_from), settings_that_differ(stored or {}, model))

    def before_train(self, runner: Runner) -> None:
        """Compare with the settings in the checkpoints of ``init_cfg``."""
        for module, checkpoint, prefix in pretrained_modules(detector(runner)):
            stored = read_checkpoint(checkpoint).meta.get('neurons') or {}
            _warn(checkpoint, settings_that_differ(stored, module, prefix))


def _warn(checkpoint: str, differences: list[str]) -> None:
    if differences:
        print_log(
            f'{checkpoint}: trained with other neurons: {"; ".join(differences)}. Their firing levels will '
            'move; set the same in act_cfg unless that is meant',
            logger='current',
            level=logging.WARNING,
        )
