"""Samples are augmented alike, however often a training was started and whoever loads them."""

import random

import numpy as np
import pytest
import torch
from hoyer_det.engine.seeding import SeededBatch, SeededBatchSampler, seeded_loader
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader, Dataset


class Drawing(Dataset):
    """Hands out what the three generators give."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, random.random(), np.random.rand(), torch.rand(()).item()

    def get_data_info(self, index: int) -> dict[str, int]:
        return dict(width=1 + index % 2, height=1)


def draw(epochs: list[int], workers: int = 0, seed: int = 5, **sampler: object) -> list[list]:
    """Return what each epoch's batches hold, in a loader that starts with the first of the epochs."""
    data = Drawing()
    batches = SeededBatchSampler(DefaultSampler(data, seed=seed), 4, seed, **sampler)
    loader = DataLoader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=list,
    )
    result = []
    for epoch in epochs:
        np.random.seed()  # whatever happened before
        batches.sampler.set_epoch(epoch)
        result.append([sample for batch in loader for sample in batch])
    return result


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize(
    'sampler', [dict(drop_last=True), dict(inner=dict(type=AspectRatioBatchSampler))]
)
def test_an_epoch_is_the_same_after_a_start(workers, sampler):
    first, second, third = draw([0, 1, 2], workers, **sampler)
    assert draw([2], **sampler) == [third]
    assert draw([1, 2], 2 - workers, **sampler) == [second, third]
    numbers = [
        number for epoch in (first, second, third) for sample in epoch for number in sample[1:]
    ]
    assert len(set(numbers)) == len(numbers)  # no two samples are augmented alike
    assert draw([2], seed=6, **sampler) != [third]


@pytest.mark.parametrize(
    'asked, inner, lengths',
    [(True, {}, [4, 4]), (False, {}, [4, 4, 2]), (True, dict(drop_last=False), [4, 4, 2])],
)
def test_drop_last_beside_a_batch_sampler(asked, inner, lengths):
    loader = dict(drop_last=asked, batch_sampler=dict(type=AspectRatioBatchSampler, **inner))
    made = dict(seeded_loader(loader, seed=0)['batch_sampler'])
    assert made.pop('type') is SeededBatchSampler
    batches = SeededBatchSampler(DefaultSampler(Drawing()), 4, **made)
    assert [len(batch) for batch in batches] == lengths


def test_samplers_without_epochs_go_on():
    sampler = SeededBatchSampler(InfiniteSampler(Drawing(), seed=0), 4, 0)
    seeds = {seed for _, batch in zip(range(9), sampler, strict=False) for seed in batch.seeds}
    assert len(seeds) == 9 * 4


def test_a_batch_knows_its_length():
    assert len(SeededBatch([3, 4], [1, 2])) == 2
