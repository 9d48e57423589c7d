"""Where two settings differ."""

import json
from typing import Any

from mmengine.config import Config

# What a training is, without how fast it runs and what it reports.
_LEARNING = ('model', 'train_dataloader', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr')
_LEARNING += ('custom_hooks', 'randomness', 'twin', 'load_from')
_WORKERS = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory')


def learning_settings(cfg: Config) -> dict[str, Any]:
    """Return, as JSON has it, what decides which weights a training ends with."""
    kept = {key: value for key, value in cfg.to_dict().items() if key in _LEARNING}
    for key in _WORKERS:
        kept['train_dataloader'].pop(key, None)
    return json.loads(json.dumps(kept, default=str))


def first_difference(before: Any, now: Any, name: str = '') -> tuple[str, Any, Any] | None:
    """Return the first dotted key with another value, and both values; None if all are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys: Any = [*before, *(key for key in now if key not in before)]
        pairs = [(key, before.get(key), now.get(key)) for key in keys]
    elif isinstance(before, list | tuple) and isinstance(now, list | tuple):
        if len(before) != len(now):
            return name, before, now
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(before, now, strict=True))]
    else:
        return None if before == now else (name, before, now)
    prefix = f'{name}.' if name else ''
    return next(filter(None, (first_difference(b, n, prefix + key) for key, b, n in pairs)), None)
