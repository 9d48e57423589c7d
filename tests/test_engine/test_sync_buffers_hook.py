"""SyncAllBuffersHook: two processes validate and save the same averaged model."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hoyer_det.engine import SyncAllBuffersHook
from hoyer_det.spiking import HoyerSpike
from mmengine.hooks import EMAHook
from processes import run_processes
from torch import nn

STEPS = 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(4), HoyerSpike(4, extremum='channel')).train()


def batches(rank: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(rank)
    return [torch.randn(16, 4, generator=draw) + 2 * rank for _ in range(STEPS)]


def run(rank: int, by_epoch: bool, update_buffers: bool) -> tuple[dict, dict]:
    """Train with an average; return what is validated, and what is saved when the epoch is over."""
    model = network()
    average = EMAHook(momentum=0.3, update_buffers=update_buffers)
    sync = SyncAllBuffersHook()
    runner = SimpleNamespace(model=model, iter=0, epoch=0, hooks=[sync, average])
    average.before_run(runner)
    for number, batch in enumerate(batches(rank)):
        model(batch)
        average.after_train_iter(runner, number)
        runner.iter += 1
    if by_epoch:
        sync.after_train_epoch(runner)
    saved = dict(state_dict=dict(model.state_dict()))
    average.before_save_checkpoint(runner, saved)
    saved = {name: value.clone() for name, value in saved['state_dict'].items()}
    for hook in runner.hooks:
        hook.before_val_epoch(runner)
    return {name: value.clone() for name, value in model.state_dict().items()}, saved


def _process(rank: int, folder: str, by_epoch: bool, update_buffers: bool) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2
    )
    torch.save(run(rank, by_epoch, update_buffers), f'{folder}/{rank}.part')
    Path(f'{folder}/{rank}.part').rename(f'{folder}/{rank}.pt')
    while not Path(folder, f'{1 - rank}.pt').exists():
        time.sleep(0.01)  # the other may still be listening
    os._exit(0)


@pytest.mark.parametrize('update_buffers', [True, False], ids=['averaged', 'copied'])
@pytest.mark.parametrize('by_epoch', [True, False], ids=['by epoch', 'by iteration'])
def test_two_processes_validate_the_mean_of_their_averages(tmp_path, by_epoch, update_buffers):
    arguments = str(tmp_path), by_epoch, update_buffers
    run_processes(_process, arguments, 2)
    (validated, saved), (other, _) = (torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1))
    alone = [run(rank, by_epoch, update_buffers)[0] for rank in (0, 1)]
    assert not torch.equal(alone[0]['0.running_mean'], alone[1]['0.running_mean'])
    for name, value in validated.items():
        assert torch.equal(value, other[name]), name
        mean = (alone[0][name].double() + alone[1][name].double()) / 2
        torch.testing.assert_close(value.double(), mean, msg=name)
        if by_epoch:
            assert torch.equal(saved[name], value), name
