"""The batches that set a network before its training: the training itself finds everything as it was."""

import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch
from hoyer_det.engine.seeding import SeededBatchSampler
from hoyer_det.weights import CenterPotentialsHook
from hoyer_det.weights.first_batches import first_batches, kept_generators, merge
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from test_centering import Detector
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

_names = itertools.count()


class Photographs(Dataset):
    """Wide and tall images of noise, whose first pixel is their number."""

    metainfo: dict[str, Any] = {}

    def __init__(self, number: int = 22) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def get_data_info(self, index: int) -> dict[str, int]:
        return dict(width=64, height=48) if index % 3 else dict(width=48, height=64)

    def __getitem__(self, index: int) -> dict[str, Any]:
        info = self.get_data_info(index)
        image = torch.rand(3, info['height'], info['width'])
        image[0, 0, 0] = index
        return dict(inputs=image)


class Numbers(Hook):
    """Notes the numbers of the images of each training step, and what the model would draw there."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        numbers = [int(image[0, 0, 0]) for image in data_batch['inputs']]
        self.seen.append((numbers, torch.get_rng_state(), np.random.get_state()[1].tolist()))


class Padding(Detector):
    """Takes lists of images, as detectors do."""

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        images = [
            torch.nn.functional.pad(i, (0, 64 - i.shape[2], 0, 64 - i.shape[1])) for i in inputs
        ]
        return super().forward(torch.stack(images), data_samples, mode)


def runner_of(model: BaseModel, folder, loader: Any, loop: dict, hooks: list[Hook]) -> Runner:
    return Runner(
        model,
        str(folder),
        train_dataloader=loader,
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        custom_hooks=hooks,
        default_hooks=dict(logger=None, checkpoint=None),
        randomness=dict(seed=3),
        default_scope='mmdet',
        experiment_name=f'first-batches-{next(_names)}',
        log_level='ERROR',
    )


SHUFFLED = dict(type='DefaultSampler', shuffle=True)
ASPECT = dict(type='AspectRatioBatchSampler')
EPOCHS, STEPS = dict(by_epoch=True, max_epochs=2), dict(by_epoch=False, max_iters=7)


@pytest.mark.parametrize(
    'loop, loader',
    [
        (EPOCHS, dict(sampler=SHUFFLED)),
        (EPOCHS, dict(sampler=SHUFFLED, batch_sampler=ASPECT)),
        (EPOCHS, dict(sampler=SHUFFLED, batch_sampler=dict(type=SeededBatchSampler, seed=3))),
        (STEPS, dict(sampler=dict(type='mmengine.InfiniteSampler'))),
        (STEPS, dict(sampler=SHUFFLED, num_workers=1, persistent_workers=True)),
    ],
    ids=['epochs', 'aspect ratio', 'seeded', 'infinite', 'worker'],
)
def test_training_sees_what_it_would_see_without(tmp_path, loop, loader):
    seen = []
    for hooks in ([], [CenterPotentialsHook(batches=3)]):
        torch.manual_seed(0)
        numbers, model = Numbers(), Padding()
        before = model.vgg.stages[3][1].norm.bias.clone()
        whole = dict(batch_size=4, dataset=Photographs(), **{'num_workers': 0, **loader})
        runner_of(model, tmp_path, whole, loop, [*hooks, numbers]).train()
        assert torch.equal(model.vgg.stages[3][1].norm.bias, before) == (not hooks)
        seen.append(numbers.seen)
    for (numbers, state, other), (expected, *states) in zip(*seen, strict=True):
        assert numbers == expected
        assert torch.equal(state, states[0]) and other == states[1]


def test_they_are_those_that_the_training_begins_with(tmp_path):
    numbers = Numbers()
    sampler = dict(type='InfiniteSampler')
    loader = dict(batch_size=4, num_workers=0, dataset=Photographs(), sampler=sampler)
    runner = runner_of(Padding(), tmp_path, loader, STEPS, [numbers])
    found = [[int(i[0, 0, 0]) for i in batch['inputs']] for batch in first_batches(runner, 3)]
    runner.train()
    assert found == [step[0] for step in numbers.seen[:3]]


class Stream(IterableDataset):
    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Any:
        return iter(dict(inputs=torch.zeros(3, 8, 8)) for _ in range(6))


@pytest.mark.parametrize(
    'dataset, number', [(Photographs(22), 3), (Photographs(6), 2), (Stream(), 2)]
)
def test_loader_that_the_caller_has_built(tmp_path, dataset, number):
    built = DataLoader(dataset, batch_size=4, collate_fn=list)
    runner = runner_of(Padding(), tmp_path, built, EPOCHS, [])
    assert len(first_batches(runner, 3)) == number


def test_loader_without_a_batch_is_named(tmp_path):
    loader = dict(
        batch_size=4, num_workers=0, drop_last=True, dataset=Photographs(3), sampler=SHUFFLED
    )
    runner = runner_of(Padding(), tmp_path, loader, EPOCHS, [])
    with pytest.raises(ValueError, match='train_dataloader: gives no batch'):
        first_batches(runner, 4)


def test_generators_go_on_as_if_nothing_had_been_drawn():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with kept_generators():
        random.random(), np.random.rand(), torch.rand(1)
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())


def shapes(images: list[Tensor | None]) -> list[tuple[int, ...] | None]:
    return [None if image is None else tuple(image.shape) for image in images]


def test_wide_and_tall_batches_are_not_padded_to_one_shape():
    def batch(height: int, width: int, name: str) -> dict[str, Any]:
        return dict(inputs=[torch.zeros(3, height, width)] * 2, data_samples=[name] * 2)

    merged = merge([batch(8, 6, 'a'), batch(6, 8, 'b'), batch(6, 9, 'c')])
    assert merged['data_samples'] == ['b', 'b', 'c', 'c']
    assert shapes(merged['inputs']) == [(3, 6, 8)] * 2 + [(3, 6, 9)] * 2
    stacked = [dict(inputs=torch.full((2, 3, 8, 8), float(i))) for i in range(3)]
    assert merge(stacked)['inputs'][:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_branches_of_semi_supervised_data_stay_apart():
    image = torch.zeros(3, 8, 8)
    one = dict(
        inputs=dict(sup=[image, None], student=[None, image]), data_samples=dict(sup=['a', None])
    )
    other = dict(inputs=dict(sup=[image, image]), data_samples=dict(sup=['b', 'c']))
    merged = merge([one, other])
    assert shapes(merged['inputs']['sup']) == [(3, 8, 8), None, (3, 8, 8), (3, 8, 8)]
    assert shapes(merged['inputs']['student']) == [None, (3, 8, 8)]
    assert merged['data_samples'] == dict(sup=['a', None, 'b', 'c'])
