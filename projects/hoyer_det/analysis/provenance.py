"""Where the figures of a report come from: checkpoint, code, and the mAP that is known already."""

import hashlib
import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ..version import __version__
from ..weights.zoo import zoo_models
from .tables import digits
from .timing import Duration


def time_text(duration: Duration | None) -> str:
    """Return the time of one image with how it was measured."""
    if duration is None:
        return 'not measured'
    threads = torch.get_num_threads()
    return (
        f'{digits(duration.median)} ms an image in PyTorch, batch 1, {threads} '
        f'thread{"s" if threads > 1 else ""}, from the resized image to its boxes '
        f'(median of {duration.runs}, least {digits(duration.least)})'
    )


def known_map(cfg: Config, checkpoint: str, meta: dict[str, Any]) -> str:
    """Return the mAP of a checkpoint without evaluating it: the zoo's, else that of the training's log.

    Args:
        cfg: Config that the checkpoint belongs to.
        checkpoint: Checkpoint file.
        meta: What the checkpoint says about its training.

    Returns:
        The mAP and where it comes from, or ``'not known'``.
    """
    for model in zoo_models().values():
        if model.path == Path(checkpoint):
            return f'{model.ap50 / 100:.3f} (AP@0.5 of the zoo, {model.date}; {model.data})'
    return validated_map(cfg, checkpoint, meta)


def validated_map(cfg: Config, checkpoint: str, meta: dict[str, Any]) -> str:
    """Return the mAP that training logged for a checkpoint, from the log beside it.

    Args:
        cfg: Config that the checkpoint belongs to.
        checkpoint: Checkpoint file, in the work folder of its training.
        meta: What the checkpoint says about its training.

    Returns:
        The mAP and where it comes from, or ``'not known'``.
    """
    epoch, loop = meta.get('epoch'), cfg.get('train_cfg') or {}
    # The time of the run is the end of its name, and names the folder of its log.
    time = '_'.join(meta.get('experiment_name', '').rsplit('_', 2)[-2:])
    log = Path(checkpoint).parent / time / 'vis_data' / 'scalars.json'
    by_epoch = loop.get('by_epoch', loop.get('type') != 'IterBasedTrainLoop')
    if epoch is None or not by_epoch or not log.is_file():
        return 'not known'
    found = {}  # the last by step
    for line in log.read_text(encoding='utf-8').splitlines():
        with suppress(json.JSONDecodeError):  # a line that was being written
            scalars = json.loads(line)
            for key in reversed(scalars):
                if key.endswith('mAP') and 'step' in scalars:
                    found[scalars['step']] = key, scalars[key]
    for step in (meta.get('iter'), epoch):  # version 0.3 logged metrics by epoch
        if step in found:
            key, value = found[step]
            return f'{value:.3f} ({key} on val after epoch {epoch}, from the log of training)'
    return 'not known'


def sha256(checkpoint: str) -> str:
    """Return the start of the SHA-256 of a checkpoint file."""
    if not Path(checkpoint).is_file():
        return 'unknown'
    return hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()[:12]


def code_version() -> str:
    """Return the version of this package, and its commit where it is run from its repository."""

    def git(*arguments: str) -> str:
        # A lock on the index could stay behind; `describe --dirty` takes one all the same.
        done = subprocess.run(
            ['git', '--no-optional-locks', *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip() if done.returncode == 0 else ''

    commit = ''
    with suppress(OSError):  # no git
        # Installed into an environment inside another repository, this file is not tracked there.
        if git('ls-files', Path(__file__).name):
            commit = git('describe', '--always', '--abbrev=12', '--exclude=*')
            if git('status', '--porcelain', '--untracked-files=no'):
                commit += '-dirty'
    return f'hoyer_det {__version__}' + (f', commit {commit}' if commit else '')
