"""Fine-tuning: learning rates that grow with the stage, thresholds kept away from zero."""

import re
from typing import Any

import torch
from mmdet.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.runner import Runner
from torch import nn

from ..spiking import spiking_layers


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class StagewiseLRConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, and a learning rate that falls from the head towards the image.

    The last stage of the backbone gets ``decay`` times the rate of neck and head, the stage before it
    ``decay**2``, and so on; a stem counts as a stage of its own. What stands at the backbone's outputs is
    new to a detector and counts as neck.
    MMDetection's ``LearningRateDecayOptimizerConstructor`` knows ConvNeXt only; ``custom_keys`` for the
    stages would switch off what ``norm_decay_mult`` and the key ``threshold`` say.

    Use it as ``optim_wrapper=dict(constructor='StagewiseLRConstructor',
    paramwise_cfg=dict(stage_lr_decay=0.7))``; all other settings keep their meaning.

    Raises:
        ValueError: If ``stage_lr_decay`` is missing or not in (0, 1], or the model has no backbone in
            stages.
    """

    def __call__(self, model: nn.Module) -> Any:
        """Make the optimizer wrapper for a model."""
        decay = self.paramwise_cfg.get('stage_lr_decay')
        if decay is None or not 0 < decay <= 1:
            raise ValueError(
                f'StagewiseLRConstructor: paramwise_cfg.stage_lr_decay must lie in (0, 1], got {decay}'
            )
        optim_wrapper = super().__call__(model)
        model = model.module if is_model_wrapper(model) else model
        levels = {id(p): _level(name) for name, p in model.named_parameters()}
        deepest = max((level for level in levels.values() if level is not None), default=None)
        if deepest is None:
            raise ValueError(
                'StagewiseLRConstructor: the model has no parameters backbone.stages.{i}'
            )
        # Schedulers are built afterwards and start from these rates.
        for group in optim_wrapper.optimizer.param_groups:
            level = levels[id(group['params'][0])]
            if level is not None:
                group['lr'] *= decay ** (1 + deepest - level)
        return optim_wrapper


def _level(name: str) -> int | None:
    """Return the stage of a parameter, -1 for a stem, None outside of the backbone."""
    if re.match(r'(?:.+\.)?backbone\.stem\.', name):
        return -1
    match = re.match(r'(?:.+\.)?backbone\.stages\.(\d+)\.', name)
    return int(match[1]) if match else None


@HOOKS.register_module()
class ThresholdFloorHook(Hook):
    r"""Keeps the magnitude of every clip threshold at or above a floor, after each optimizer step.

    The neuron reads :math:`|v|` and divides by it. Near 0 nearly every positive potential is beyond the
    window of the surrogate gradient, so the layer no longer learns, and a step across 0 turns the sign of
    the threshold's gradient. Each threshold keeps the sign it had when the training began.

    Args:
        minimum: The floor, in the units of the potential; positive.

    Raises:
        ValueError: If the floor is not positive.
    """

    def __init__(self, minimum: float = 0.01) -> None:
        if not minimum > 0:
            raise ValueError(f'ThresholdFloorHook: minimum must be positive, got {minimum}')
        self.minimum = minimum
        self._thresholds: list[tuple[torch.Tensor, torch.Tensor]] = []

    def before_train(self, runner: Runner) -> None:
        """Note the thresholds and their signs."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        thresholds = [layer.threshold.data for layer in spiking_layers(model).values()]
        self._thresholds = [(v, torch.ones_like(v).copysign_(v)) for v in thresholds]

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Raise the magnitudes below the floor to it."""
        for threshold, sign in self._thresholds:
            threshold.mul_(sign).clamp_(min=self.minimum).mul_(sign)
