"""Random numbers that follow from a training's seed and position alone, so that it resumes exactly."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, Sampler


def seed_generators(seed: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch with a number below 2**32."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def derive_seeds(*position: int, number: int = 1) -> list[int]:
    """Return seeds that follow from a position: the training's seed, the process, the epoch, ..."""
    return np.random.SeedSequence(position).generate_state(number).tolist()


class SeededBatch:
    """Indices of a batch; each seeds the generators of the process that loads it.

    A data loader iterates over the indices where it loads the samples, in its own process or in a worker,
    so the data set below stays as it is, whatever its wrappers, and so does the way to start workers.

    Args:
        indices: Indices into the data set.
        seeds: A seed for each.
    """

    def __init__(self, indices: Sequence[int], seeds: Sequence[int]) -> None:
        self.indices, self.seeds = indices, seeds

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        for index, seed in zip(self.indices, self.seeds, strict=True):
            seed_generators(seed)
            yield index


class SeededBatchSampler:
    """Batches whose augmentation does not depend on how often generators were used before.

    mmengine seeds a worker when it starts. A resumed training starts its workers anew, so its images are
    augmented in another way than those of the training that was never interrupted. Here each sample has a
    seed of its own: of the training, the process, the epoch, the batch and the place in it.

    Args:
        sampler: Sampler of single indices. Its ``epoch`` counts where it has one; others go on over
            all iterations, as ``InfiniteSampler`` does.
        batch_size: Images in a batch.
        seed: Seed of the training.
        drop_last: Whether a last batch with fewer images is left out; ``inner`` has its own.
        inner: Config of a batch sampler that chooses the batches, such as ``AspectRatioBatchSampler``;
            PyTorch's by default.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        seed: int,
        drop_last: bool = False,
        inner: dict[str, Any] | None = None,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.seed = seed
        if inner is None:
            self.inner: Any = BatchSampler(sampler, batch_size, drop_last)
        else:
            default = dict(sampler=sampler, batch_size=batch_size)
            self.inner = DATA_SAMPLERS.build(inner, default_args=default)
        self._passes = 0

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[SeededBatch]:
        epoch = getattr(self.sampler, 'epoch', self._passes)
        self._passes += 1
        for number, indices in enumerate(self.inner):
            position = self.seed, get_rank(), epoch, number
            yield SeededBatch(indices, derive_seeds(*position, number=len(indices)))


def seeded_loader(dataloader: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return the config of a data loader with its batches from a :class:`SeededBatchSampler`.

    Args:
        dataloader: Config with a ``sampler``; it stays as it is.
        seed: Seed of the training.
    """
    config = dict(dataloader)
    drop_last, inner = config.pop('drop_last', False), config.get('batch_sampler')
    if inner is not None and drop_last:
        inner = {'drop_last': True, **inner}
    config['batch_sampler'] = dict(
        type=SeededBatchSampler,
        seed=seed,
        drop_last=drop_last,
        inner=inner,
    )
    return config


class SeedIterationsHook(Hook):
    """Seeds the generators before each training iteration, for what the model itself draws.

    Dropout, a sampler of proposals or a random input size then follow from the training's seed, the
    process and the iteration, and a resumed training draws the same.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the generators."""
        seed_generators(*derive_seeds(runner.seed, get_rank(), runner.iter))
