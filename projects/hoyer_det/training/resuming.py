"""How a training goes on from a checkpoint."""

import shlex
import sys
from typing import Any

from mmengine.config import Config

from ..engine.checkpoint import load_trained, newest_good_checkpoint
from ..weights.reading import drop_starts
from ..weights.stored_config import stored_config
from .differences import first_difference, learning_settings

# Read once, into the optimizer and the schedulers, whose states a checkpoint brings back.
_KEPT = ('optim_wrapper', 'param_scheduler', 'auto_scale_lr')
# The schedules count iterations, of which an epoch has as many as there are batches.
_BATCH = 'train_dataloader.batch_size'


def newest(work_dir: str) -> str | None:
    """Return the newest good checkpoint, None where there is none at all; tell what is passed over."""
    found, bad = newest_good_checkpoint(work_dir)
    if bad and found is None:
        raise ValueError('; '.join(bad))
    for line in bad:
        print(f'passed over {line}')
    if bad:
        print(f'going on from {found}')
    return found


def how_to_go_on(work_dir: str, begun: bool = False) -> str:
    """Return a line for a training that was interrupted: its newest checkpoint, and the command.

    Args:
        work_dir: Where its checkpoints are.
        begun: Whether it is to be resumed without one, too.
    """
    checkpoint = newest_good_checkpoint(work_dir)[0]
    command, *arguments = sys.argv
    program = command if command.startswith('hoyer-det') else f'python {shlex.quote(command)}'
    rest = []
    for before, argument in zip(['', *arguments], arguments, strict=False):
        named = before == '--resume' and not argument.startswith('-')
        if argument != '--resume' and not named:
            rest.append(argument)
    if checkpoint is None:
        if begun:
            rest.append('--resume')
        return (
            f'interrupted; {work_dir} has no checkpoint yet; start again with: '
            f'{program} {shlex.join(rest)}'
        )
    return (
        f'interrupted; the newest checkpoint is {checkpoint}; go on with: '
        f'{program} {shlex.join([*rest, "--resume"])}'
    )


def resume_from(cfg: Config, checkpoint: str | None) -> None:
    """Let a training go on from a checkpoint; begin as without ``--resume`` where there is none.

    Args:
        cfg: Completed config, changed in place.
        checkpoint: Its file, read and found good.

    Raises:
        ValueError: If the checkpoint does not belong to the config, or was trained with another optimizer
            or schedule.
    """
    cfg.resume = checkpoint is not None
    if checkpoint is None:  # nothing there yet: it starts from `load_from`, if there is one
        return
    cfg.load_from = checkpoint
    _, meta = load_trained(cfg, checkpoint)
    for key, limit in (('epoch', 'max_epochs'), ('iter', 'max_iters')):
        number = cfg.train_cfg.get(limit)
        if number is not None and meta.get(key, 0) >= number:
            print(f'{checkpoint}: is complete, train_cfg.{limit}={number} is reached')
    if 'seed' in meta:  # else the order of the images would be another from here on
        asked = (cfg.get('randomness') or {}).get('seed')
        if asked not in (None, meta['seed']):
            print(f'randomness.seed={asked}: a resumed training keeps its seed, {meta["seed"]}')
        cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': meta['seed']}
    drop_starts(cfg.model)
    if 'cfg' in meta:
        stored = stored_config(meta, checkpoint)
        check_same_steps(stored, cfg, checkpoint)
        _tell_difference(stored, cfg)


def check_same_steps(stored: Config, cfg: Config, checkpoint: str) -> None:
    """Refuse an optimizer or schedule that the state in the checkpoint would replace.

    Raises:
        ValueError: Names the key and both values.
    """
    for key in (*_KEPT, _BATCH):
        difference = first_difference(_value(stored, key), _value(cfg, key), key)
        if difference is not None:
            name, before, now = difference
            raise ValueError(
                f'{checkpoint}: was trained with {name}={before!r}, now it is {now!r}, which a resumed '
                'training would not follow; set it back, or start a new training from these weights '
                f'without --resume: --work-dir ANOTHER --cfg-options load_from={checkpoint}'
            )


def _value(cfg: Config, key: str) -> Any:
    """Return the value of a dotted key, None if it is not there."""
    for name in key.split('.'):
        cfg = (cfg or {}).get(name)
    return cfg


def _tell_difference(stored: Config, cfg: Config) -> None:
    """Print the first other setting that decides which weights a training ends with."""
    drop_starts(stored.get('model'))
    before, now = (learning_settings(each) for each in (stored, cfg))
    for settings in (before, now):
        settings.pop('load_from', None)
    difference = first_difference(before, now)
    if difference is not None:
        name, then, value = difference
        print(
            f'{name}={value!r}: was {then!r} when the checkpoint was written; it counts from here on'
        )
