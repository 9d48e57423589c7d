"""What hooks that set a network by its first training batches have in common."""

from typing import Any

import torch
from mmengine.runner import Runner
from torch import Tensor, nn


def merge(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Put batches together, so that the deepest layers have enough positions to be measured on."""
    return {
        key: torch.cat([batch[key] for batch in batches])
        if isinstance(value, Tensor)
        else [item for batch in batches for item in batch[key]]
        for key, value in batches[0].items()
    }


def run(model: nn.Module, batch: Any) -> None:
    """Run a model on a batch as in training."""
    model._run_forward(model.data_preprocessor(batch, True), mode='loss')


def restart_averages(runner: Runner, model: nn.Module) -> None:
    """Let averages over steps (``EMAHook``) start from the weights that the model has now."""
    for average in (getattr(hook, 'ema_model', None) for hook in runner.hooks):
        if average is not None:
            average.module.load_state_dict(model.state_dict())
