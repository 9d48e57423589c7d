"""What the kernels must leave to PyTorch's operations."""

import pytest
import torch
from hoyer_det.kernels import FastHoyerSpike, norm_spike
from torch import nn

pytestmark = pytest.mark.usefixtures('needs_kernels')


def both_levels(make, x):
    """Return spikes, gradient and running variance with and without kernels."""
    results = []
    for level in ('tested', 'plain'):
        norm, act = make()
        act.kernels = level
        image = x.clone().requires_grad_()
        out = norm_spike(norm, act, image)
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        results.append((out.detach(), image.grad, norm.running_var.clone()))
    return results


def strided_weight():
    norm = nn.BatchNorm2d(6)
    norm.weight = nn.Parameter(torch.tensor([0.5]).expand(6))
    return norm, FastHoyerSpike()


def strided_average():
    norm = nn.BatchNorm2d(6)
    norm.running_mean = torch.zeros(6, 2)[:, 0]
    return norm, FastHoyerSpike()


def uncounted():
    norm = nn.BatchNorm2d(6)
    norm.num_batches_tracked = None
    return norm, FastHoyerSpike()


def strided_extremum():
    act = FastHoyerSpike(6, 'channel')
    act.running_extremum, act.running_weight = torch.zeros(6, 2).unbind(1)
    return nn.BatchNorm2d(6), act


@pytest.mark.parametrize('make', [strided_weight, strided_average, uncounted, strided_extremum])
def test_parameters_that_code_in_c_cannot_read(make):
    torch.manual_seed(0)
    fast, plain = both_levels(make, torch.randn(3, 6, 5, 4) + 1)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b)


def test_pruned_weights_are_refused_as_by_pytorch():
    norm = nn.BatchNorm2d(6)
    norm.weight = nn.Parameter(torch.ones(4))
    x = torch.randn(3, 6, 5, 4)
    with pytest.raises(RuntimeError):
        norm_spike(norm, FastHoyerSpike(), x)


def test_a_layer_on_another_device_is_refused_as_by_pytorch():
    with pytest.raises(RuntimeError, match='meta|device'):
        FastHoyerSpike().to('meta')(torch.randn(2, 3, 4, 4))


def test_a_threshold_of_nan_leaves_the_average_alone():
    layer = FastHoyerSpike(threshold=1.0)
    with torch.no_grad():
        layer.threshold.fill_(float('nan'))
    layer(torch.randn(2, 3, 4, 4))
    assert layer.running_extremum.item() == layer.running_weight.item() == 0


@pytest.mark.parametrize('value', [1000.1, -3.3e6])
def test_moments_of_a_constant_are_exact(value):
    norm, act = nn.BatchNorm2d(3, momentum=1.0), FastHoyerSpike()
    x = torch.full((2, 3, 50, 60), value)
    act(x, norm)
    assert norm.running_mean.tolist() == x[0, :, 0, 0].tolist()
    assert not norm.running_var.any()
