"""The kernels on a CPU against PyTorch's own operations."""

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from hoyer_det.backbones import HoyerResNet, HoyerVGG
from hoyer_det.backbones.blocks import SpikingConvBlock
from hoyer_det.kernels import FastHoyerSpike, SpikeConv2d, convolution, cpu, set_kernels
from hoyer_det.spiking import check_potentials, record_hoyer_squares, record_spikes
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import prune

pytestmark = pytest.mark.usefixtures('needs_kernels')


def training_step(net, x, plain=False, weight=1e-3):
    """Return outputs, loss, gradients and state after a forward and backward pass of a copy."""
    net, x = copy.deepcopy(net).train(), x.clone().requires_grad_()
    if plain:
        set_kernels(net, 'plain')
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
    layer, x = FastHoyerSpike(5, 'channel', threshold=0.7), torch.randn(shape)
    weight = 1e-2 if with_square else 0.0
    assert_same(
        training_step(layer, x, weight=weight), training_step(layer, x, plain=True, weight=weight)
    )


def test_potentials_of_0():
    """The Hoyer square has a gradient there, as that of PyTorch's clamp; the spike has none."""
    layer = FastHoyerSpike(5, 'channel', threshold=0.7)
    x = torch.tensor([0.0, 0.2, 0.7, 2.0, -1.0]).repeat(4, 5, 3)
    assert_same(
        training_step(layer, x, weight=1.0), training_step(layer, x, plain=True, weight=1.0)
    )


def test_an_empty_batch():
    x = torch.zeros(0, 5, 4, 6)
    (spikes, loss), grads, _ = training_step(FastHoyerSpike(5, 'channel'), x)
    assert spikes.shape == grads['x'].shape == x.shape and loss == grads['threshold'] == 0


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
        fast = block(x)
        set_kernels(block, 'plain')
        plain = block(x)
    assert torch.equal(fast, plain) and 0.03 < fast.mean() < 0.97
    assert fast.stride() == plain.stride()
    # With gradients the surrogate is wanted.
    block(x.requires_grad_()).sum().backward()
    assert x.grad.any()


def test_tracing_export_and_fake_tensors():
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
    'build',
    [
        partial(HoyerVGG, 11, 0.1, ssd_tail=True, ceil_mode=True, bias_spread=1.0),
        partial(HoyerVGG, 11, 0.1, with_cp=True, bias_spread=1.0),
        partial(HoyerVGG, 11, 0.1, ssd_tail=True, shortcut=True, bias_spread=1.0),
        partial(HoyerVGG, 11, 0.1, frozen_stages=1, norm_eval=True, bias_spread=1.0),
        partial(HoyerVGG, 11, 0.1, norm_cfg=dict(type='GN', num_groups=1), bias_spread=1.0),
        partial(HoyerResNet, 18, base_channels=4, bias_spread=1.0),
        partial(HoyerResNet, 50, base_channels=4, deep_stem=True, with_cp=True, bias_spread=1.0),
    ],
    ids=[
        'vgg',
        'vgg-checkpoint',
        'vgg-shortcut',
        'vgg-frozen',
        'vgg-gn',
        'resnet18',
        'resnet50-checkpoint',
    ],
)
def test_whole_backbones(build, monkeypatch):
    monkeypatch.setattr(convolution, 'SLICE', 500)
    monkeypatch.setattr(convolution, 'SMALLEST', 0)
    torch.manual_seed(0)
    net, x = build(), torch.randn(3, 3, 48, 64)
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
    set_kernels(net, 'plain' if plain else 'tested')
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        net(x)
    weights = {p.data_ptr() for p in net.parameters()}
    gc.collect()
    return sum(size for address, size in kept.items() if address not in weights)


def test_a_block_keeps_the_input_of_its_norm_and_bits(monkeypatch):
    monkeypatch.setattr(convolution, 'SMALLEST', 0)
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


def test_a_detector_backbone_keeps_little_over_half_of_its_twin(monkeypatch):
    monkeypatch.setattr(convolution, 'SMALLEST', 0)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    sizes = []
    for act in ('HoyerSpike', 'ReLU'):
        net = HoyerVGG(16, 0.25, ssd_tail=True, ceil_mode=True, act_cfg=dict(type=act))
        sizes.append(kept_bytes(net, x))
    assert sizes[0] < 0.55 * sizes[1]


@pytest.mark.parametrize('count', [1, 8, 17, 315, 40_001])
def test_bits_give_back_the_spikes(count):
    spikes = torch.randint(0, 2, (count,)).float()
    bits = cpu.pack(spikes)
    assert len(bits) == (count + 7) // 8
    assert torch.equal(cpu.unpack(bits)[:count], spikes)
    # The first entry is the highest bit.
    assert bits[0] >> 7 == spikes[0]


@pytest.mark.parametrize('place', [0, 7, 5000, 40_000])
@pytest.mark.parametrize('value', [0.5, -1.0, 2.0, float('nan'), -0.0])
def test_what_is_neither_0_nor_1_is_not_packed(place, value):
    spikes = torch.ones(40_001)
    spikes[place] = value
    assert cpu.pack(spikes) is None


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('binary', [False, True])
@pytest.mark.parametrize('options', [{}, dict(stride=2, padding=1, groups=2, bias=False)])
def test_convolution(binary, channels_last, options, monkeypatch):
    monkeypatch.setattr(convolution, 'SMALLEST', 0)
    monkeypatch.setattr(convolution, 'SLICE', 300)
    torch.manual_seed(0)
    conv = SpikeConv2d(4, 6, 3, **options)
    plain = nn.Conv2d(4, 6, 3, **options)
    plain.load_state_dict(conv.state_dict())
    x = torch.randint(0, 2, (5, 4, 9, 7)).float() if binary else torch.randn(5, 4, 9, 7)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    results = []
    for layer in (conv, plain):
        image = x.clone().requires_grad_()
        out = layer(image)
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        results.append([out, image.grad, *(p.grad for p in layer.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_convolution_calls_hooks_and_sees_pruned_weights():
    conv = SpikeConv2d(2, 2, 1, bias=False)
    prune.l1_unstructured(conv, 'weight', amount=4)
    assert not conv(torch.ones(1, 2, 300, 300)).any()


def test_saved_tensor_hooks_get_all_there_is_to_keep():
    with torch.autograd.graph.save_on_cpu():
        fast = training_step(HoyerVGG(11, 0.1), torch.randn(2, 3, 64, 64))
    assert all(torch.isfinite(g).all() for g in fast[1].values())


def test_nan_is_noted_behind_a_norm():
    block = SpikingConvBlock(3, 4, 1)
    block(torch.full((1, 3, 4, 4), float('nan')))
    with pytest.raises(FloatingPointError, match='act'):
        check_potentials(block)


@pytest.mark.parametrize('saturated', ['clip', 'exclude'])
@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf'), 1e38])
def test_extreme_potentials(saturated, value):
    results = []
    for level in ('tested', 'plain'):
        layer = FastHoyerSpike(saturated=saturated, kernels=level)
        u = torch.linspace(-1, 1.5, 48).view(2, 3, 4, 2)
        u[0, 0, 0, 0] = value
        u.requires_grad_()
        spikes = layer(u)
        spikes.sum().backward()
        results.append([spikes, u.grad, layer.running_extremum, layer.running_weight])
        if value == 1e38:
            check_potentials(layer)  # large, but a number
        else:
            with pytest.raises(FloatingPointError):
                check_potentials(layer)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('level', ['tested', 'plain'])
@pytest.mark.parametrize('with_norm', [False, True])
def test_a_threshold_of_0_has_gradients_of_0(level, with_norm):
    layer = FastHoyerSpike(kernels=level)
    norm = nn.BatchNorm2d(3) if with_norm else None
    with torch.no_grad():
        layer.threshold.zero_()
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    with record_hoyer_squares(layer) as squares:
        spikes = layer(x, norm)
    (spikes.sum() + squares[0]).backward()
    assert layer.threshold.grad == 0 and not x.grad.any()


def test_models_keep_their_own_setting():
    torch.manual_seed(0)
    fast, plain = HoyerVGG(11, 0.1), HoyerVGG(11, 0.1)
    set_kernels(plain, 'plain')
    copied = pickle.loads(pickle.dumps(copy.deepcopy(plain)))
    levels = [
        {m.kernels for m in net.modules() if hasattr(m, 'kernels')} for net in (fast, plain, copied)
    ]
    assert levels == [{'tested'}, {'plain'}, {'plain'}]
    with pytest.raises(ValueError, match="must be one of .*got 'fast'"):
        set_kernels(fast, 'fast')


def test_two_threads_with_different_settings():
    torch.manual_seed(0)
    net, x = HoyerVGG(11, 0.1, bias_spread=1.0), torch.randn(2, 3, 48, 48)
    expected = training_step(net, x)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: training_step(net, x, plain=n % 2 == 1), range(12)))
    for result in results:
        assert_same(result, expected, rtol=2e-3)


def test_observing_changes_nothing(monkeypatch):
    """Spikes, gradients and buffers are equal to the last bit, and the same kernels run."""
    calls = []
    for name in ('forward', 'fire'):
        original = getattr(cpu, name)
        monkeypatch.setattr(cpu, name, lambda *a, f=original, n=name: (calls.append(n), f(*a))[1])
    torch.manual_seed(0)
    net, x = HoyerVGG(11, 0.1, bias_spread=1.0), torch.randn(2, 3, 48, 48)
    seen, results, runs = [], [], []
    for observed in (False, True):
        twin = copy.deepcopy(net)
        calls.clear()
        with record_spikes(twin, lambda *a: seen.append(a)) if observed else nullcontext():
            out = twin(x)
            sum(o.sum() for o in out).backward()
            with torch.no_grad():
                evaluated = twin.eval()(x)
        results.append([*out, *evaluated, *(p.grad for p in twin.parameters()), *twin.buffers()])
        runs.append(list(calls))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert runs[0] == runs[1] and set(runs[0]) == {'forward', 'fire'}
    assert len(seen) == len(runs[0])
    assert [a[3] is None for a in seen] == [name == 'fire' for name in runs[0]]


def test_a_forward_hook_on_the_neuron_sees_its_spikes():
    block, seen = SpikingConvBlock(3, 4, 1), []
    block.act.register_forward_hook(lambda module, inputs, output: seen.append(output))
    out = block(torch.rand(1, 3, 4, 4))
    assert seen[0] is out
