"""What the fused path must leave to the plain one, and what must not pass as spikes."""

import io

import pytest
import torch
from hoyer_det.backbones.blocks import SpikingConvBlock
from hoyer_det.spiking import HoyerSpike, fused_path, plain_path, spikes_as_bits
from hoyer_det.spiking.fused.bits import mark_spikes
from torch import nn
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures('compiled_path')


def both_paths(make, x):
    """Return spikes, gradient and running variance on both paths."""
    results = []
    for path in (fused_path, plain_path):
        norm, act = make()
        image = x.clone().requires_grad_()
        with path():
            out = act(image, norm) if act.takes_norm(norm, image) else act(norm(image))
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        results.append((out.detach(), image.grad, norm.running_var.clone()))
    return results


def strided_weight():
    norm = nn.BatchNorm2d(6)
    norm.weight = nn.Parameter(torch.tensor([0.5]).expand(6))
    return norm, HoyerSpike()


def strided_average():
    norm = nn.BatchNorm2d(6)
    norm.running_mean = torch.zeros(6, 2)[:, 0]
    return norm, HoyerSpike()


def uncounted():
    norm = nn.BatchNorm2d(6)
    norm.num_batches_tracked = None
    return norm, HoyerSpike()


def strided_extremum():
    act = HoyerSpike(6, 'channel')
    act.running_extremum, act.running_weight = torch.zeros(6, 2).unbind(1)
    return nn.BatchNorm2d(6), act


@pytest.mark.parametrize('make', [strided_weight, strided_average, uncounted, strided_extremum])
def test_parameters_that_code_in_c_cannot_read(make):
    torch.manual_seed(0)
    fast, plain = both_paths(make, torch.randn(3, 6, 5, 4) + 1)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b)


def test_pruned_weights_are_refused_as_by_pytorch():
    norm = nn.BatchNorm2d(6)
    norm.weight = nn.Parameter(torch.ones(4))
    x = torch.randn(3, 6, 5, 4)
    assert not HoyerSpike().takes_norm(norm, x)
    with pytest.raises(RuntimeError):
        norm(x)


def test_a_layer_on_another_device_is_refused_as_by_pytorch():
    with pytest.raises(RuntimeError, match='meta|device'):
        HoyerSpike().to('meta')(torch.randn(2, 3, 4, 4))


def test_a_threshold_of_nan_leaves_the_average_alone():
    layer = HoyerSpike(threshold=1.0)
    with torch.no_grad():
        layer.threshold.fill_(float('nan'))
    layer(torch.randn(2, 3, 4, 4))
    assert layer.running_extremum.item() == layer.running_weight.item() == 0


@pytest.mark.parametrize('value', [1000.1, -3.3e6])
def test_moments_of_a_constant_are_exact(value):
    norm, act = nn.BatchNorm2d(3, momentum=1.0), HoyerSpike()
    x = torch.full((2, 3, 50, 60), value)
    act(x, norm)
    assert norm.running_mean.tolist() == x[0, :, 0, 0].tolist()
    assert not norm.running_var.any()


def test_global_hooks_and_a_forward_put_in_place_are_called():
    block, x, seen = SpikingConvBlock(3, 4, 1), torch.rand(1, 3, 4, 4), []
    handle = nn.modules.module.register_module_forward_hook(lambda m, i, o: seen.append(type(m)))
    try:
        block(x)
    finally:
        handle.remove()
    assert nn.BatchNorm2d in seen and HoyerSpike in seen
    seen.clear()
    original = block.norm.forward
    block.norm.forward = lambda x: (seen.append('norm'), original(x))[1]
    block(x)
    assert seen == ['norm']


def test_what_is_modified_in_place_is_noticed_as_without_bits():
    conv, x = nn.Conv2d(2, 2, 1), torch.randn(1, 2, 3, 3, requires_grad=True)
    with spikes_as_bits():
        h = x * 2
        out = conv(h)
        h.mul_(0)
    with pytest.raises(RuntimeError, match='modified by an in-place operation'):
        out.sum().backward()

    weight = nn.Parameter(torch.ones(2, 2, 1, 1))
    with spikes_as_bits():
        out = F.conv2d(x, weight).sum()
    out.backward(retain_graph=True)
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match='modified by an in-place operation'):
        out.backward()


def test_tensors_without_entries_in_memory_are_kept_as_they_are():
    a = torch.eye(3).to_sparse().requires_grad_()
    b = torch.rand(3, 3, requires_grad=True)
    with spikes_as_bits():
        out = torch.sparse.mm(a, b)
    out.sum().backward()
    assert torch.equal(b.grad, torch.ones(3, 3))


def test_an_address_that_spikes_have_left_is_not_theirs():
    weight = torch.ones(1, 1, 1, 1, requires_grad=True)
    x = torch.zeros(1, 1, 64, 64, requires_grad=True)
    with spikes_as_bits():
        spikes = mark_spikes((x * 1 >= 0).float() + x * 0)
        place = spikes.detach()
        spikes.data = torch.zeros(1, 1, 64, 64)
        place.fill_(3.0)
        out = F.conv2d(place, weight)
    out.sum().backward()
    assert weight.grad.item() == 3 * 64 * 64


def test_spikes_can_be_saved():
    block, file = SpikingConvBlock(3, 4, 1), io.BytesIO()
    with spikes_as_bits():
        spikes = block(torch.rand(1, 3, 4, 4))
        F.conv2d(spikes, torch.ones(1, 4, 1, 1, requires_grad=True))
    torch.save(spikes, file)
    file.seek(0)
    assert torch.equal(torch.load(file), spikes)
