"""The fused passes and the packed spikes against the plain tensor operations."""

import copy
import gc
from contextlib import nullcontext

import pytest
import torch
from hoyer_det.backbones import HoyerResNet, HoyerVGG
from hoyer_det.backbones.blocks import SpikingConvBlock
from hoyer_det.spiking import (
    HoyerSpike,
    plain_path,
    record_hoyer_squares,
    spikes_as_bits,
)
from hoyer_det.spiking.fused import convolution, cpu
from hoyer_det.spiking.fused.bits import PackedSpikes, mark_spikes
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures('compiled_path')


def training_step(net, x, plain=False, weight=1e-3):
    """Return outputs, loss, gradients and state after a forward and backward pass of a copy."""
    net, x = copy.deepcopy(net).train(), x.clone().requires_grad_()
    # The backward pass as well, because gradient checkpointing runs the network again in it.
    with plain_path() if plain else nullcontext():
        with record_hoyer_squares(net) as squares:
            outs = net(x)
        outs = outs if isinstance(outs, tuple) else (outs,)
        loss = sum((out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum() for out in outs)
        loss = loss + weight * sum(squares)
        loss.backward()
    grads = {name: p.grad for name, p in net.named_parameters() if p.requires_grad}
    return [*outs, loss], {**grads, 'x': x.grad}, dict(net.state_dict())


def assert_same(fast, plain, rtol=1e-4):
    for a, b in zip(fast[0], plain[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for index in (1, 2):
        assert fast[index].keys() == plain[index].keys()
        largest = max(value.abs().max().item() for value in plain[1].values())
        for name, value in plain[index].items():
            # Rounding is of the size of what was added up; a sum may have cancelled.
            scale = max(value.abs().max().item(), 1e-2 * largest) if value.numel() else 0.0
            torch.testing.assert_close(
                fast[index][name], value, rtol=rtol, atol=rtol * scale, msg=name
            )


@pytest.mark.parametrize('extremum', ['layer', 'channel', 'fixed'])
@pytest.mark.parametrize('saturated', ['clip', 'exclude'])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('threads', [1, 3])
def test_block_of_norm_and_neuron(extremum, saturated, channels_last, threads, monkeypatch):
    monkeypatch.setattr(cpu, '_threads', lambda entries: threads)
    torch.manual_seed(0)
    act = dict(type='HoyerSpike', extremum=extremum, saturated=saturated, threshold=-0.8)
    block = SpikingConvBlock(3, 6, 3, padding=1, act_cfg=act, bias_spread=1.0)
    x = torch.randn(3, 3, 9, 7) + 2
    if channels_last:
        x, block = (
            x.to(memory_format=torch.channels_last),
            block.to(memory_format=torch.channels_last),
        )
    assert_same(training_step(block, x), training_step(block, x, plain=True))


@pytest.mark.parametrize('shape', [(4, 5), (2, 5, 7), (3, 5, 4, 6)])
@pytest.mark.parametrize('with_square', [False, True])
def test_neuron_alone(shape, with_square):
    torch.manual_seed(0)
    layer, x = HoyerSpike(5, 'channel', threshold=0.7), torch.randn(shape)
    weight = 1e-2 if with_square else 0.0
    assert_same(
        training_step(layer, x, weight=weight), training_step(layer, x, plain=True, weight=weight)
    )


@pytest.mark.parametrize('extremum', ['layer', 'channel', 'fixed'])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('with_norm', [False, True])
def test_evaluation(extremum, channels_last, with_norm):
    torch.manual_seed(0)
    norm_cfg = dict(type='BN') if with_norm else None
    act_cfg = dict(type='HoyerSpike', extremum=extremum, threshold=0.8)
    block = SpikingConvBlock(3, 6, 3, norm_cfg=norm_cfg, act_cfg=act_cfg, bias_spread=1.0)
    x = torch.randn(3, 3, 9, 12)
    if channels_last:
        x, block = (thing.to(memory_format=torch.channels_last) for thing in (x, block))
    block(x)
    block.eval()
    with torch.no_grad():
        assert not with_norm or block.act.takes_norm(block.norm, block.conv(x))
        fast = block(x)
        with plain_path():
            plain = block(x)
    assert torch.equal(fast, plain) and 0.03 < fast.mean() < 0.97
    assert fast.stride() == plain.stride()
    # With gradients the surrogate is wanted.
    block(x.requires_grad_()).sum().backward()
    assert x.grad.any()


def test_what_stands_for_a_tensor_or_is_traced_goes_by_plain_operations():
    block, x = SpikingConvBlock(3, 6, 3), torch.randn(2, 3, 8, 8)
    block(x)
    block.eval()(x)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        assert block(mode.from_tensor(x)).shape == (2, 6, 6, 6)
    with torch.no_grad():
        traced = torch.jit.trace(block, x)
        other = torch.randn(2, 3, 8, 8)
        assert torch.equal(traced(other), block(other))
        exported = torch.export.export(block, (x,)).module()
        assert torch.equal(exported(other), block(other))


@pytest.mark.parametrize(
    'net',
    [
        HoyerVGG(11, 0.1, ssd_tail=True, ceil_mode=True, bias_spread=1.0),
        HoyerVGG(11, 0.1, with_cp=True, bias_spread=1.0),
        HoyerVGG(11, 0.1, frozen_stages=1, norm_eval=True, bias_spread=1.0),
        HoyerVGG(11, 0.1, norm_cfg=dict(type='GN', num_groups=1), bias_spread=1.0),
        HoyerResNet(18, base_channels=4, bias_spread=1.0),
        HoyerResNet(50, base_channels=4, deep_stem=True, with_cp=True, bias_spread=1.0),
    ],
    ids=['vgg', 'vgg-checkpoint', 'vgg-frozen', 'vgg-gn', 'resnet18', 'resnet50-checkpoint'],
)
@pytest.mark.filterwarnings('ignore:HoyerSpike is evaluated before')
def test_whole_backbones(net, monkeypatch):
    monkeypatch.setattr(convolution, '_SLICE', 500)
    torch.manual_seed(0)
    x = torch.randn(3, 3, 48, 64)
    fast, plain = training_step(net, x), training_step(net, x, plain=True)
    assert_same(fast, plain, rtol=2e-3)


def kept_bytes(net, x, plain=False):
    """Return the bytes of all distinct storages that autograd keeps, as its hooks see them."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    alive = []
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
        plain_path() if plain else nullcontext(),
        spikes_as_bits(),
    ):
        net(x)
    weights = {p.data_ptr() for p in net.parameters()}
    gc.collect()
    return sum(size for address, size in kept.items() if address not in weights)


def test_a_block_keeps_the_input_of_its_norm_and_bits():
    torch.manual_seed(0)
    net = nn.Sequential(
        SpikingConvBlock(3, 16, 3, padding=1), SpikingConvBlock(16, 16, 3, padding=1)
    )
    relu = nn.Sequential(
        SpikingConvBlock(3, 16, 3, padding=1, act_cfg=dict(type='ReLU')),
        SpikingConvBlock(16, 16, 3, padding=1, act_cfg=dict(type='ReLU')),
    )
    x = torch.randn(2, 3, 32, 32)
    entries, image = 2 * 16 * 32 * 32, 4 * x.numel()
    spiking = kept_bytes(net, x)
    assert spiking == pytest.approx(image + 2 * 4 * entries + entries / 8, rel=0.02)
    assert kept_bytes(relu, x) == pytest.approx(image + 4 * 4 * entries, rel=0.02)
    assert kept_bytes(net, x, plain=True) > 1.4 * spiking


def test_a_detector_backbone_keeps_little_over_half_of_its_twin():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    sizes = []
    for act in ('HoyerSpike', 'ReLU'):
        net = HoyerVGG(16, 0.25, ssd_tail=True, ceil_mode=True, act_cfg=dict(type=act))
        sizes.append(kept_bytes(net, x))
    assert sizes[0] < 0.55 * sizes[1]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('shape', [(3, 5, 7, 3), (1, 1), (17,), (4, 8, 2, 2)])
def test_bits_give_back_the_spikes(dtype, shape):
    torch.manual_seed(0)
    spikes = torch.randint(0, 2, shape).to(dtype)
    packed = PackedSpikes(spikes)
    assert packed.bits.numel() == (spikes.numel() + 7) // 8
    assert torch.equal(packed.unpack(), spikes) and packed.unpack().dtype == dtype
    if len(shape) == 4:
        last = spikes.to(memory_format=torch.channels_last)
        again = PackedSpikes(last).unpack()
        assert torch.equal(again, spikes) and again.stride() == last.stride()
        for images in (slice(0, 1), slice(shape[0] - 1, shape[0]), slice(0, shape[0])):
            assert torch.equal(PackedSpikes(last).unpack(None, images), spikes[images])
            assert torch.equal(packed.unpack(None, images), spikes[images])


def test_bits_by_plain_operations_are_the_same():
    from hoyer_det.spiking.fused import bits

    spikes = torch.randint(0, 2, (101,)).float()
    packed = PackedSpikes(spikes)
    assert torch.equal(bits._pack_by_torch(spikes), packed.bits)
    assert torch.equal(bits._unpack_by_torch(packed.bits, torch.float32)[:101], spikes)


def test_spikes_that_were_written_to_are_kept_as_they_are():
    weight = torch.ones(1, 1, 1, 1, requires_grad=True)
    spikes = torch.ones(1, 1, 2, 2, requires_grad=True) * 1
    with spikes_as_bits():
        mark_spikes(spikes)
        spikes.mul_(3.0)
        out = F.conv2d(spikes, weight)
    out.sum().backward()
    assert weight.grad.item() == 12


def test_hooks_that_are_there_already_keep_all():
    with torch.autograd.graph.save_on_cpu():
        fast = training_step(HoyerVGG(11, 0.1), torch.randn(2, 3, 64, 64))
    assert all(torch.isfinite(g).all() for g in fast[1].values())


def test_a_hook_on_the_norm_is_called():
    block, seen = SpikingConvBlock(3, 4, 1), []
    block.norm.register_forward_hook(lambda *_: seen.append(1))
    block(torch.rand(1, 3, 4, 4))
    assert seen


def test_nan_is_noted_behind_a_norm():
    from hoyer_det.spiking import check_potentials

    block = SpikingConvBlock(3, 4, 1)
    block(torch.full((1, 3, 4, 4), float('nan')))
    with pytest.raises(FloatingPointError, match='act'):
        check_potentials(block)
