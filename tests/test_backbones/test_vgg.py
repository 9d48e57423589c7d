"""HoyerVGG: shapes, structure, freezing, checkpointing, initialisation."""

import copy
import math

import pytest
import torch
from hoyer_det.backbones import HoyerVGG
from hoyer_det.kernels import set_kernels
from hoyer_det.spiking import record_hoyer_squares, spiking_layers
from mmdet.registry import MODELS
from torch import nn

CONVS = {11: 8, 13: 10, 16: 13, 19: 16}


def convs(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def train_once(net: nn.Module, seed: int = 0, size: int = 32) -> torch.Tensor:
    """One training step on random images and labels; the loss reaches every level and neuron."""
    torch.manual_seed(seed)
    images = torch.randn(2, 3, size, size)
    with record_hoyer_squares(net) as squares:
        outs = net(images)
    loss = sum((out * torch.randn_like(out)).sum() for out in outs) + 1e-2 * sum(squares)
    net.zero_grad()
    loss.backward()
    return loss


def prepared(**options) -> HoyerVGG:
    """A narrow, initialised network."""
    torch.manual_seed(0)
    net = HoyerVGG(11, width=0.0625, **options)
    net.init_weights()
    return net


@pytest.mark.parametrize('depth', [11, 13, 16, 19])
def test_plain_levels(depth):
    net = HoyerVGG(depth, width=0.125)
    outs = net(torch.randn(2, 3, 64, 96))
    assert [tuple(out.shape) for out in outs] == [
        (2, 16, 16, 24),
        (2, 32, 8, 12),
        (2, 64, 4, 6),
        (2, 64, 2, 3),
    ]
    assert net.out_channels == (16, 32, 64, 64) and net.out_strides == (4, 8, 16, 32)
    assert len(convs(net)) == CONVS[depth]


@pytest.mark.parametrize('depth', [11, 13, 16, 19])
def test_every_stage_reports_its_channels_and_stride(depth):
    for tail, stages in ((False, 5), (True, 6)):
        net = HoyerVGG(depth, width=0.0625, out_indices=range(stages), ssd_tail=tail)
        with torch.no_grad():
            outs = net(torch.randn(2, 3, 64, 64))
        assert tuple(out.shape[1] for out in outs) == net.out_channels
        assert tuple(64 // out.shape[2] for out in outs) == net.out_strides
        assert len(convs(net)) == CONVS[depth] + (2 if tail else 0)


@pytest.mark.parametrize(
    ('size', 'ceil_mode', 'sides'),
    [(300, True, (38, 19)), (300, False, (37, 18)), (512, True, (64, 32))],
)
def test_ssd_levels(size, ceil_mode, sides):
    net = HoyerVGG(16, width=0.0625, ssd_tail=True, ceil_mode=ceil_mode)
    with torch.no_grad():
        outs = net(torch.randn(1, 3, size, size))
    assert [tuple(out.shape) for out in outs] == [
        (1, 32, sides[0], sides[0]),
        (1, 64, sides[1], sides[1]),
    ]
    assert net.out_channels == (32, 64) and net.out_strides == (8, 16)


def test_full_width_has_the_channels_of_vgg16():
    with torch.device('meta'):
        net = HoyerVGG(16, ssd_tail=True)
    channels = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6 + [1024] * 2
    assert [conv.out_channels for conv in convs(net)] == channels
    assert net.out_channels == (512, 1024)
    fc6, fc7 = convs(net.stages[5])
    assert (fc6.kernel_size, fc6.dilation, fc7.kernel_size) == ((3, 3), (6, 6), (1, 1))


def test_pooling_stands_between_convolution_and_norm():
    net = HoyerVGG(16, width=0.0625)
    set_kernels(net, 'plain')  # so that norms are called as modules
    sides = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda m, i, o, n=name: sides.update({n: o.shape[-1]}))
    net(torch.randn(1, 3, 64, 64))
    for index, stage in enumerate(net.stages):
        last = len(stage) - 1
        for block in range(last + 1):
            conv, norm = (
                sides[f'stages.{index}.{block}.conv'],
                sides[f'stages.{index}.{block}.norm'],
            )
            assert conv == 64 >> index
            assert norm == (conv // 2 if block == last else conv)


def test_convolutions_have_a_bias_only_without_norm():
    assert all(conv.bias is None for conv in convs(HoyerVGG(11, width=0.0625)))
    assert all(conv.bias is not None for conv in convs(HoyerVGG(11, width=0.0625, norm_cfg=None)))


@pytest.mark.parametrize('extremum', ['layer', 'channel', 'fixed'])
def test_outputs_are_zeros_and_ones_in_both_modes(extremum):
    # A lower threshold, so that deep layers fire at a fixed level too.
    act_cfg = dict(type='HoyerSpike', extremum=extremum, threshold=0.5)
    net = prepared(act_cfg=act_cfg, ssd_tail=True)
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        for _ in range(20):  # until the running statistics are those of the batch
            net.train()(images)
    for training in (True, False):
        for out in net.train(training)(images):
            assert sorted(out.unique().tolist()) == [0, 1]


def test_relu_twin_has_the_same_weights_but_no_thresholds():
    spiking = HoyerVGG(16, width=0.0625, ssd_tail=True)
    twin = HoyerVGG(16, width=0.0625, ssd_tail=True, act_cfg=dict(type='ReLU'))
    names = {n: p.shape for n, p in spiking.named_parameters() if not n.endswith('.act.threshold')}
    assert names == {n: p.shape for n, p in twin.named_parameters()}
    assert len(list(spiking.parameters())) - len(names) == len(spiking_layers(spiking)) == 15
    assert not spiking_layers(twin)
    assert twin(torch.randn(2, 3, 64, 64))[0].unique().numel() > 2


def test_every_neuron_knows_its_channels():
    net = HoyerVGG(16, width=0.0625, act_cfg=dict(type='HoyerSpike', extremum='channel'))
    widths = [layer.running_extremum.numel() for layer in spiking_layers(net).values()]
    assert widths == [conv.out_channels for conv in convs(net)]


def test_gradients_reach_every_parameter_and_are_finite():
    net = prepared(ssd_tail=True)
    train_once(net, size=64)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize('frozen_stages', [0, 2, 5])
def test_frozen_stages_do_not_move(frozen_stages):
    net = prepared(frozen_stages=-1)
    train_once(net)  # so that the frozen neurons have an average to fire at
    state = copy.deepcopy(net.state_dict())
    net = prepared(frozen_stages=frozen_stages)
    net.load_state_dict(state)
    net.eval()
    net.train()
    weights = [p for p in net.parameters() if p.requires_grad]
    if frozen_stages == 5:
        assert not weights
        net(torch.randn(2, 3, 32, 32))
    else:
        optimizer = torch.optim.SGD(weights, lr=0.1)
        train_once(net, seed=1)
        optimizer.step()
    for name, tensor in net.state_dict().items():
        frozen = int(name.split('.')[1]) < frozen_stages
        assert torch.equal(tensor, state[name]) == frozen, name


def test_norm_eval_keeps_norms_but_not_neurons():
    net = prepared(norm_eval=True).train()
    state = copy.deepcopy(net.state_dict())
    train_once(net)
    for name, tensor in net.state_dict().items():
        if '.norm.running' in name or '.norm.num' in name:
            assert torch.equal(tensor, state[name]), name
        elif '.act.running' in name or '.act.num' in name:
            assert not torch.equal(tensor, state[name]), name


@pytest.mark.parametrize(
    'options', [{}, dict(norm_eval=True), dict(frozen_stages=1), dict(shortcut=True)]
)
def test_checkpointing_changes_nothing(options):
    trained = prepared()  # a shortcut has no weights
    train_once(trained)
    plain, checkpointed = prepared(**options), prepared(with_cp=True, **options)
    plain.load_state_dict(trained.state_dict())
    checkpointed.load_state_dict(plain.state_dict())
    for seed in (0, 1):
        loss, loss_cp = (train_once(net.train(), seed) for net in (plain, checkpointed))
        assert torch.equal(loss, loss_cp)
    for (name, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, msg=name)
    # The batch norms too count each batch once, although their stage runs twice.
    for (name, a), b in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(a, b), name
    norms = [m for m in checkpointed.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.momentum == 0.1 for norm in norms)


def test_checkpointing_survives_a_second_backward_pass():
    net = prepared(with_cp=True)
    loss = sum(out.sum() for out in net(torch.randn(2, 3, 32, 32)))
    weights = list(net.parameters())
    first = torch.autograd.grad(loss, weights, retain_graph=True)
    second = torch.autograd.grad(loss, weights)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert net.stages[0][0].norm.num_batches_tracked == 1


def test_default_initialisation():
    torch.manual_seed(0)
    net = HoyerVGG(11, width=0.5)
    net.init_weights()
    for conv in convs(net)[1:]:
        # Kaiming's normal over the outgoing connections, with the gain of a ReLU
        fan = conv.out_channels * 9
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.03)
        assert abs(conv.weight.mean().item()) < 0.1 * math.sqrt(2 / fan)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.weight.eq(1).all() and norm.bias.eq(0).all()
    assert all(layer.threshold == 1 for layer in spiking_layers(net).values())


def test_pretrained_initialisation_takes_the_backbone_out_of_a_detector(tmp_path):
    source = prepared()
    train_once(source)
    weights = {f'backbone.{name}': tensor for name, tensor in source.state_dict().items()}
    weights['bbox_head.conv.weight'] = torch.ones(1)
    file = tmp_path / 'detector.pth'
    torch.save(dict(state_dict=weights), file)
    init_cfg = dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
    net = HoyerVGG(11, width=0.0625, init_cfg=init_cfg)
    assert not torch.equal(net.stages[0][0].conv.weight, source.stages[0][0].conv.weight)
    net.init_weights()
    expected = source.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())


def test_state_dict_round_trip_keeps_the_evaluated_spikes():
    source = prepared(act_cfg=dict(type='HoyerSpike', extremum='channel'))
    for seed in range(3):
        train_once(source, seed)
    copied = prepared(act_cfg=dict(type='HoyerSpike', extremum='channel'))
    images = torch.randn(2, 3, 32, 32)
    copied.load_state_dict(source.state_dict())
    for a, b in zip(source.eval()(images), copied.eval()(images), strict=True):
        assert torch.equal(a, b)


def test_is_built_by_its_registered_name():
    net = MODELS.build(dict(type='HoyerVGG', depth=11, width=0.0625, out_indices=[4]))
    assert isinstance(net, HoyerVGG) and net.out_strides == (32,)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(depth=12), r'depth must be one of \(11, 13, 16, 19\), got 12'),
        (dict(width=0), 'width .* got 0'),
        (dict(width=-1.0), 'width .* got -1.0'),
        (dict(width=0.001), 'width .* got 0.001'),
        (dict(width=float('nan')), 'width .* got nan'),
        (dict(frozen_stages=6), 'frozen_stages must lie between -1 and 5, got 6'),
        (dict(frozen_stages=-2), 'frozen_stages .* got -2'),
        (dict(out_indices=()), r'out_indices .* got \(\)'),
        (dict(out_indices=(3, 1)), r'out_indices .* got \(3, 1\)'),
        (dict(out_indices=(1, 1)), r'out_indices .* got \(1, 1\)'),
        (dict(out_indices=(-1,)), r'out_indices .* got \(-1,\)'),
        (dict(out_indices=(3, 5)), r'out_indices .* from 0 to 4, got \(3, 5\)'),
        (dict(out_indices=(3, 6), ssd_tail=True), r'out_indices .* from 0 to 5, got \(3, 6\)'),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f'HoyerVGG: {message}'):
        HoyerVGG(**{'depth': 11, **arguments})


def test_spread_biases_reach_spiking_norms_alone_and_survive_initialisation():
    torch.manual_seed(0)
    spiking = HoyerVGG(11, width=0.25, bias_spread=0.5)
    spiking.init_weights()
    biases = torch.cat([m.bias for m in spiking.modules() if isinstance(m, nn.BatchNorm2d)])
    # Uniform in [-0.5, 0.5]: standard deviation 1 / sqrt(12).
    assert biases.abs().max() <= 0.5
    assert biases.std().item() == pytest.approx(12**-0.5, rel=0.1)
    twin = HoyerVGG(11, width=0.25, bias_spread=0.5, act_cfg=dict(type='ReLU'))
    twin.init_weights()
    assert all(m.bias.eq(0).all() for m in twin.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize('options', [dict(), dict(ssd_tail=True)])
@pytest.mark.parametrize('out_indices', [(0,), (0, 1), (3,)])
def test_every_weight_of_a_short_network_gets_a_gradient(options, out_indices):
    # DistributedDataParallel stops at a weight without one.
    net = HoyerVGG(11, width=0.125, out_indices=out_indices, **options)
    assert len(net.stages) == out_indices[-1] + 1
    sum(out.sum() for out in net(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in net.parameters())
