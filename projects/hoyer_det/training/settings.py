"""Refuses settings of a config that no training or evaluation could use, before anything is built."""

import math
import numbers
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS, init_default_scope

from ..errors import naming

# What a command cannot do without.
NEEDED = {
    'train': ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'),
    'test': ('model', 'test_dataloader', 'test_cfg', 'test_evaluator'),
    'export': ('model',),
}
_VALIDATION = ('val_dataloader', 'val_cfg', 'val_evaluator')
# Samplers that never come to an end.
_ENDLESS = ('InfiniteSampler', 'MultiSourceSampler', 'GroupMultiSourceSampler')
_RUNNERS = (None, 'Runner', 'DatasetRunner')  # what the command's own runner stands in for


class _Number(NamedTuple):
    """What a number must be: at least so much, or above it, and finite."""

    least: float
    above: bool = False
    whole: bool = False
    also: tuple[Any, ...] = ()

    def fault(self, value: Any) -> str | None:
        """Tell what a value should be, None if it is."""
        if value in self.also:
            return None
        kind = numbers.Integral if self.whole else numbers.Real
        if (
            isinstance(value, kind)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (value > self.least if self.above else value >= self.least)
        ):
            return None
        also = ''.join(f', or {each}' for each in self.also)
        return (
            f'must be a {"whole number" if self.whole else "finite number"} '
            f'{"above" if self.above else "of at least"} {self.least}{also}'
        )


_COUNT, _INDEX = _Number(1, whole=True), _Number(0, whole=True)
_POSITIVE, _NOT_NEGATIVE = _Number(0, above=True), _Number(0)
# Dotted keys, as patterns.
_NUMBERS = {
    'train_cfg.max_epochs': _COUNT,
    'train_cfg.max_iters': _COUNT,
    'train_cfg.val_interval': _COUNT,
    'train_cfg.val_begin': _INDEX,
    '*_dataloader.batch_size': _COUNT,
    '*_dataloader.num_workers': _INDEX,
    'optim_wrapper*.optimizer.lr': _POSITIVE,
    'optim_wrapper*.optimizer.weight_decay': _NOT_NEGATIVE,
    'optim_wrapper*.optimizer.momentum': _NOT_NEGATIVE,
    'optim_wrapper*.clip_grad.max_norm': _POSITIVE,
    'optim_wrapper*.accumulative_counts': _COUNT,
    'param_scheduler*.begin': _INDEX,
    'param_scheduler*.end': _COUNT,
    'param_scheduler*.T_max': _COUNT,
    'param_scheduler*.step_size': _COUNT,
    'param_scheduler*.milestones.*': _COUNT,
    'param_scheduler*.gamma': _POSITIVE,
    'param_scheduler*.power': _POSITIVE,
    'default_hooks.logger.interval': _COUNT,
    'default_hooks.checkpoint.interval': _Number(1, whole=True, also=(-1,)),  # -1: never
    'randomness.seed': _Number(0, whole=True, also=(None,)),
}


def check_settings(cfg: Config, command: str) -> None:
    """Refuse what would end in an error far from its cause, or would not do what it says.

    Args:
        cfg: Completed config.
        command: ``'train'``, ``'test'`` or ``'export'``.

    Raises:
        ValueError: Names the file, the key and its value.
    """
    for key in NEEDED[command]:
        if not isinstance(cfg.get(key), dict | list) or not cfg[key]:
            raise ValueError(
                f'{cfg.filename}: {key}={cfg.get(key)!r}: `hoyer-det {command}` needs its settings'
            )
    if cfg.get('runner_type') not in _RUNNERS:
        raise ValueError(
            f'{cfg.filename}: runner_type={cfg.runner_type!r}: `hoyer-det {command}` has a runner of its '
            f"own; leave it out, or take MMDetection's: `hoyer-det run {command}`"
        )
    if not isinstance(cfg.get('load_from'), str | None):
        raise ValueError(
            f'{cfg.filename}: load_from={cfg.load_from!r}: must be a file or an address'
        )
    for key, value in _values(cfg._cfg_dict):
        for pattern, number in _NUMBERS.items():
            fault = number.fault(value) if fnmatchcase(key, pattern) else None
            if fault is not None:
                raise ValueError(f'{cfg.filename}: {key}={value!r}: {fault}')
    if command == 'train':
        _check_validation(cfg)
        _check_sampler(cfg)
        _check_checkpoints(cfg)
        _check_steps(cfg)


def _values(node: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of all values that are neither mappings nor sequences."""
    if isinstance(node, dict | list | tuple):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _values(value, f'{name}.{key}' if name else str(key))
    else:
        yield name, node


def _check_validation(cfg: Config) -> None:
    given = [key for key in _VALIDATION if cfg.get(key) is not None]
    if given and len(given) < len(_VALIDATION):
        missing = next(key for key in _VALIDATION if key not in given)
        raise ValueError(
            f'{cfg.filename}: {missing}=None: belongs to {" and ".join(given)}; give all three, or none '
            'for a training without validation'
        )


def _check_sampler(cfg: Config) -> None:
    """Refuse a sampler without an end in a loop that waits for the end of an epoch."""
    sampler = (cfg.train_dataloader.get('sampler') or {}).get('type')
    if str(sampler).split('.')[-1] in _ENDLESS and _counts_epochs(cfg):
        raise ValueError(
            f'{cfg.filename}: train_dataloader.sampler.type={sampler!r}: has no end, and train_cfg counts '
            "epochs; take 'DefaultSampler', or an IterBasedTrainLoop"
        )


def _check_checkpoints(cfg: Config) -> None:
    """Refuse checkpoints that a training could not be resumed from as if it had never ended."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if hook.get('out_dir') is not None:
        raise ValueError(
            f'{cfg.filename}: default_hooks.checkpoint.out_dir={hook["out_dir"]!r}: --resume looks for '
            'checkpoints in the work folder; leave it out and choose a --work-dir'
        )
    if not hook.get('by_epoch', True) and _counts_epochs(cfg):
        raise ValueError(
            f'{cfg.filename}: default_hooks.checkpoint.by_epoch=False: train_cfg counts epochs, and one that '
            'is resumed within begins again; leave it out, or take an IterBasedTrainLoop'
        )


def _counts_epochs(cfg: Config) -> bool:
    """Tell whether the training goes by epochs rather than iterations."""
    loop = cfg.train_cfg.get('type')
    return loop == 'EpochBasedTrainLoop' or (loop is None and cfg.train_cfg.get('by_epoch', True))


def _check_steps(cfg: Config) -> None:
    """Build optimizer and schedulers for a stand-in of the model's parameters."""
    wrapper, schedulers = cfg.optim_wrapper, cfg.get('param_scheduler') or []
    if not isinstance(schedulers, dict | list | tuple):
        raise ValueError(
            f'{cfg.filename}: param_scheduler={schedulers!r}: must be a scheduler or a list of them'
        )
    if 'optimizer' not in wrapper:  # several of them, which a constructor of the user's makes
        return
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with naming(cfg, 'optim_wrapper.optimizer'):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = OPTIMIZERS.build({**wrapper.optimizer, 'params': [parameter]})
    with naming(cfg, 'optim_wrapper'):
        others = ('optimizer', 'constructor', 'paramwise_cfg')
        rest = {key: value for key, value in wrapper.items() if key not in others}
        OPTIM_WRAPPERS.build({'type': 'OptimWrapper', **rest, 'optimizer': optimizer})
    single = isinstance(schedulers, dict)
    for number, scheduler in enumerate([schedulers] if single else schedulers):
        with naming(cfg, 'param_scheduler' if single else f'param_scheduler.{number}'):
            PARAM_SCHEDULERS.build(
                dict(scheduler), default_args=dict(optimizer=optimizer, epoch_length=1)
            )
