"""What hooks that set a network by its first training batches have in common."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset


def first_batches(runner: Runner, number: int) -> list[Any]:
    """Return the first training batches, or all where there are fewer.

    They come through a data loader of their own, and the training finds its own as it was: samplers such as
    ``InfiniteSampler`` end when a pass is given up, and ``AspectRatioBatchSampler`` keeps images for the
    next pass.

    Args:
        runner: Runner of a training.
        number: How many batches.

    Raises:
        ValueError: If there is none.
    """
    with kept_generators():
        batches = list(islice(_loader_of_its_own(runner), number))
    if not batches:
        raise ValueError(
            'train_dataloader: gives no batch; it needs more images or a smaller batch_size'
        )
    return batches


def _loader_of_its_own(runner: Runner) -> DataLoader:
    """Return a loader with the data set of the training and new samplers."""
    loader, config = runner.train_dataloader, runner._train_dataloader
    if isinstance(loader.dataset, IterableDataset):
        return loader
    rest = dict(
        dataset=loader.dataset,
        num_workers=min(loader.num_workers, 1),
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
    )
    if not isinstance(config, dict):  # the caller has built it
        size = getattr(loader.batch_sampler, 'batch_size', 1)
        return DataLoader(batch_size=size, shuffle=True, **rest)
    seed = None if runner._randomness_cfg.get('diff_rank_seed', False) else runner.seed
    defaults = dict(dataset=loader.dataset, seed=seed)
    sampler = DATA_SAMPLERS.build(config['sampler'], default_args=defaults)
    size = config.get('batch_size', 1)
    if config.get('batch_sampler') is None:
        drop_last = config.get('drop_last', False)
        return DataLoader(batch_size=size, sampler=sampler, drop_last=drop_last, **rest)
    defaults = dict(sampler=sampler, batch_size=size)
    batch_sampler = DATA_SAMPLERS.build(config['batch_sampler'], default_args=defaults)
    return DataLoader(batch_sampler=batch_sampler, **rest)


@contextmanager
def kept_generators() -> Iterator[None]:
    """Give the generators of Python, NumPy and PyTorch their states back at the end."""
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])


def merge(batches: list[Any]) -> Any:
    """Put batches together, so that the deepest layers have enough positions to be measured on.

    Of batches of wide and of tall images those of which there are more are taken: padded to one shape, the
    zeros would count as positions.
    """
    wide = [_is_wide(batch) for batch in batches]
    more = 2 * sum(wide) >= len(wide)
    return _joined([batch for batch, is_wide in zip(batches, wide, strict=True) if is_wide == more])


def _is_wide(batch: Any) -> bool:
    sizes = [image.shape[-2:] for image in _images(batch['inputs'])]
    return max(width for _, width in sizes) > max(height for height, _ in sizes)


def _images(inputs: Any) -> Iterator[Tensor]:
    if isinstance(inputs, Tensor):
        yield inputs
    elif inputs is not None:  # of semi-supervised data: by branch, None where an image has none
        for item in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from _images(item)


def _joined(values: list[Any]) -> Any:
    if isinstance(values[0], Mapping):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: _joined([value[key] for value in values if key in value]) for key in keys}
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    return [item for value in values for item in value]


def run(model: nn.Module, batch: Any) -> None:
    """Run a model on a batch as in training."""
    model._run_forward(model.data_preprocessor(batch, True), mode='loss')


def restart_averages(runner: Runner, model: nn.Module) -> None:
    """Let averages over steps (``EMAHook``) start from the weights that the model has now."""
    for average in (getattr(hook, 'ema_model', None) for hook in runner.hooks):
        if average is not None:
            average.module.load_state_dict(model.state_dict())
