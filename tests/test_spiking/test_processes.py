"""Synchronised neurons: several processes against one process with the whole batch."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hoyer_det.engine import HoyerRegularizerHook
from hoyer_det.spiking import HoyerSpike, record_hoyer_squares, spiking_layers
from processes import run_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

BATCH, WEIGHT = 8, 1e-2


def make(extremum: str, saturated: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        HoyerSpike(4, extremum, saturated=saturated, synchronise=True),
        nn.Conv2d(4, 5, 3),
        HoyerSpike(5, extremum, saturated=saturated, synchronise=True),
    ).double()


def step(net: nn.Module, x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, list]:
    """Return loss and Hoyer squares after a backward pass; the loss is a mean over images."""
    with record_hoyer_squares(net) as squares:
        out = net(x)
    loss = (out * target).sum() / len(x) + WEIGHT * sum(squares)
    loss.backward()
    return loss.detach(), [square.item() for square in squares]


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 3, 10, 10, generator=generator, dtype=torch.float64)
    x *= torch.linspace(0.2, 2, BATCH).view(-1, 1, 1, 1)  # so that processes differ
    return x, torch.randn(BATCH, 5, 6, 6, generator=generator, dtype=torch.float64)


def _process(rank: int, world: int, folder: str, extremum: str, saturated: str) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=world
    )
    net = make(extremum, saturated)
    share = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    loss, squares = step(DistributedDataParallel(net), *(t[share] for t in data()))
    torch.distributed.all_reduce(loss)
    grads = [p.grad for p in net.parameters()]
    torch.save((loss / world, squares, grads, dict(net.named_buffers())), f'{folder}/{rank}.part')
    Path(folder, f'{rank}.part').rename(Path(folder, f'{rank}.pt'))
    while not all(Path(folder, f'{other}.pt').exists() for other in range(world)):
        time.sleep(0.01)
    os._exit(0)  # Gloo's threads and PyTorch's destructors can wait for each other for ever


@pytest.mark.parametrize(
    ('world', 'extremum', 'saturated'), [(2, 'channel', 'clip'), (4, 'layer', 'exclude')]
)
def test_processes_equal_one_with_the_whole_batch(tmp_path, world, extremum, saturated):
    arguments = (world, str(tmp_path), extremum, saturated)
    run_processes(_process, arguments, world)
    net = make(extremum, saturated)
    loss, squares = step(net, *data())
    for rank in range(world):
        loss_r, squares_r, grads_r, buffers_r = torch.load(tmp_path / f'{rank}.pt')
        torch.testing.assert_close(loss_r, loss)
        assert squares_r == pytest.approx(squares, rel=1e-12)
        for a, b in zip(grads_r, net.parameters(), strict=True):
            torch.testing.assert_close(a, b.grad)
        for name, value in net.named_buffers():
            torch.testing.assert_close(buffers_r[name], value)


def test_sync_bn_synchronises_the_neurons():
    nets = [nn.Sequential(norm(3), HoyerSpike()) for norm in (nn.BatchNorm2d, nn.SyncBatchNorm)]
    for net, expected in zip(nets, (False, True), strict=True):
        HoyerRegularizerHook(0.0).before_train(
            SimpleNamespace(model=net, hooks=[], optim_wrapper=None)
        )
        assert [m.synchronise for m in spiking_layers(net).values()] == [expected]
