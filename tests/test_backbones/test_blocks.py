"""What the spiking networks are built from: activations, biases, checkpointing."""

import pytest
import torch
from hoyer_det.backbones.blocks import (
    SecondForward,
    build_activation,
    checkpointed,
    evaluate_norms,
    freeze,
    spread_biases,
    use_spiking_conv_modules,
)
from hoyer_det.spiking import HoyerSpike, record_hoyer_squares
from mmcv.cnn import ConvModule
from torch import nn

CHANNEL = dict(type='HoyerSpike', extremum='channel')


def small_net(norm: nn.Module, act: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, act or HoyerSpike())


def test_activation_is_told_its_channels_and_not_to_work_in_place():
    assert build_activation(CHANNEL, 7).running_extremum.numel() == 7
    assert build_activation(dict(CHANNEL, num_features=5), 7).running_extremum.numel() == 5
    relu = dict(type='ReLU', inplace=True)
    assert not build_activation(relu, 7).inplace and relu['inplace']
    with pytest.raises(ValueError, match='act_cfg must name an activation, .* got None'):
        build_activation(None, 7)


def test_neurons_of_conv_modules_learn_their_channels():
    net = nn.Sequential(
        ConvModule(3, 5, 1, act_cfg=CHANNEL),
        nn.Sequential(ConvModule(5, 6, 1, act_cfg=CHANNEL)),
        ConvModule(6, 7, 1, act_cfg=None),
        ConvModule(7, 7, 1),
        ConvModule(7, 8, 1, act_cfg=dict(type='HoyerSpike')),
    )
    use_spiking_conv_modules(net)
    found = [m.running_extremum.numel() for m in net.modules() if isinstance(m, HoyerSpike)]
    assert found == [5, 6, 1]
    use_spiking_conv_modules(net)  # a second time changes nothing
    net(torch.randn(2, 3, 4, 4))
    wrong = ConvModule(3, 5, 1, act_cfg=dict(CHANNEL, num_features=4))
    with pytest.raises(ValueError, match='has 5 channels, the layer was made for 4'):
        use_spiking_conv_modules(nn.Sequential(wrong))


@pytest.mark.parametrize('order', [('norm', 'act', 'conv'), ('act', 'conv', 'norm')])
def test_neuron_before_the_convolution_has_the_channels_that_it_reads(order):
    """As in the neck of NAS-FCOS."""
    module = ConvModule(3, 5, 1, norm_cfg=dict(type='BN'), act_cfg=CHANNEL, order=order)
    net = nn.Sequential(module)
    use_spiking_conv_modules(net)
    assert net[0].activate.running_extremum.numel() == 3
    assert net(torch.randn(2, 3, 4, 4)).shape == (2, 5, 4, 4)


def test_setting_the_channels_keeps_an_average_that_is_there():
    layer = HoyerSpike(extremum='channel')
    layer.set_channels(3)
    storage = layer.running_extremum
    layer(torch.rand(2, 3, 4, 4))
    before = storage.clone()
    layer.set_channels(3)
    assert layer.running_extremum is storage and torch.equal(storage, before) and before.all()


@pytest.mark.parametrize('norm', [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.SyncBatchNorm(4)])
def test_biases_of_every_kind_of_norm_are_spread(norm):
    net = small_net(norm)
    convolution = net[0].bias.clone()
    spread_biases(net, 0.5)
    assert norm.bias.ne(0).all() and norm.bias.abs().max() <= 0.5
    assert norm.weight.eq(1).all() and torch.equal(net[0].bias, convolution)


def test_biases_stay_without_spread_without_bias_and_without_neurons():
    net = small_net(nn.BatchNorm2d(4))
    state = torch.get_rng_state()
    spread_biases(net, 0.0)
    twin = small_net(nn.BatchNorm2d(4), nn.ReLU())
    torch.set_rng_state(state)
    spread_biases(twin, 0.5)
    assert net[1].bias.eq(0).all() and twin[1].bias.eq(0).all()
    assert torch.equal(torch.get_rng_state(), state)  # nor is a random number drawn
    spread_biases(small_net(nn.BatchNorm2d(4, affine=False)), 0.5)


def test_norms_alone_are_evaluated():
    net = small_net(nn.SyncBatchNorm(4)).append(nn.BatchNorm2d(4))
    evaluate_norms(net)
    assert [module.training for module in net] == [True, False, True, False]


def test_frozen_modules_are_evaluated_and_have_no_gradient():
    net = small_net(nn.BatchNorm2d(4))
    freeze(net)
    assert not any(module.training for module in net.modules())
    assert not any(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_statistics_are_kept_inside_the_context_and_move_outside(norm):
    net, x = small_net(norm(4, momentum=0.3)), torch.randn(2, 3, 8, 8)
    before = [buffer.clone() for buffer in net[1].buffers()]
    with SecondForward(net):
        inside = net[:2](x)
    assert all(torch.equal(a, b) for a, b in zip(before, net[1].buffers(), strict=True))
    assert net[1].momentum == 0.3
    assert torch.equal(net[:2](x), inside)
    assert not any(torch.equal(a, b) for a, b in zip(before, net[1].buffers(), strict=True))
    assert net[1].num_batches_tracked == 1


def test_a_norm_without_statistics_is_left_alone():
    net, x = small_net(nn.BatchNorm2d(4, track_running_stats=False)), torch.randn(2, 3, 8, 8)
    with SecondForward(net):
        inside = net(x)
    assert torch.equal(net(x), inside) and net[1].num_batches_tracked is None


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_checkpointed_module_runs_again_only_where_a_gradient_is_wanted(norm):
    net, calls = small_net(norm(4)), []
    net[0].register_forward_pre_hook(lambda m, i: calls.append(torch.is_grad_enabled()))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        checkpointed(net, x)
    checkpointed(net.eval(), x).sum().backward()
    assert calls == [False, True]
    plain = small_net(norm(4))
    net.train().load_state_dict(plain.state_dict())
    net.zero_grad()
    calls.clear()
    torch.manual_seed(1)
    weight = torch.randn(4, 6, 6)
    for spikes in (checkpointed(net, x), plain(x)):
        (spikes * weight).sum().backward()
    assert len(calls) == 2
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad) and a.grad.any()
    for a, b in zip(net.buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b)


def test_checkpointing_counts_the_batch_once_and_keeps_the_gradient():
    def run(with_cp):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), HoyerSpike(4, 'channel'), nn.Conv2d(4, 2, 1))
        x = torch.randn(2, 3, 8, 8)
        with record_hoyer_squares(net) as squares:
            out = checkpointed(net, x) if with_cp else net(x)
            (out.square().sum() + sum(squares)).backward()
        assert len(squares) == 1
        return [p.grad for p in net.parameters()], net.state_dict()

    (grads, state), (grads_cp, state_cp) = run(False), run(True)
    for a, b in zip(grads, grads_cp, strict=True):
        torch.testing.assert_close(a, b)
    assert all(torch.equal(state[k], state_cp[k]) for k in state)
