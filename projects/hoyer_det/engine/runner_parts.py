"""What hooks ask a runner for."""

from mmengine.hooks import LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def detector(runner: Runner) -> nn.Module:
    """Return the model of a runner, without the wrapper of a distributed run."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def log_interval(runner: Runner) -> int:
    """Return the interval of the ``LoggerHook`` in iterations, 50 where there is none."""
    return min((h.interval for h in runner.hooks if isinstance(h, LoggerHook)), default=50)
