"""Spike rates, channels, maps and histograms of potentials against counts by hand."""

import pytest
import torch
from hoyer_det.analysis import Measurement, NeuronRecorder, change_potentials, observe_neurons
from hoyer_det.analysis.explanations import neuron_explanations
from hoyer_det.analysis.neurons import choose_maps, firing_levels
from hoyer_det.analysis.tables import neuron_rows, totals
from hoyer_det.backbones.blocks import SpikingConvBlock
from hoyer_det.detectors.conversion import ACTIVATIONS, convert_activations
from hoyer_det.detectors.forward_trace import trace_forward
from hoyer_det.spiking import HoyerSpike
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn


def trained(**settings) -> HoyerSpike:
    """A neuron in evaluation mode that fires at 1."""
    layer = HoyerSpike(**{'extremum': 'fixed', **settings}).eval()
    layer.running_weight.fill_(1.0)
    layer.running_extremum.fill_(1.0)
    return layer


# Two images of three channels and 1 x 2 places; channel 0 fires everywhere, channel 2 nowhere.
IMAGES = [
    torch.tensor([[[[1.0, 2.0]], [[0.0, 1.5]], [[-1.0, 0.9]]]]),
    torch.tensor([[[[9.0, 1.0]], [[0.5, 0.0]], [[0.0, 0.0]]]]),
]


def record(net, *images, **settings):
    """Statistics of the one layer of a network that saw images, each a list of its inputs."""
    recorder = NeuronRecorder(net, **settings)
    for image in images:
        with recorder.image():
            for x in image:
                net(x)
    (layer,) = recorder.layers.values()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    return layer


def test_rates_channels_and_maps():
    layer = record(nn.Sequential(trained()), *([image] for image in IMAGES), map_images=[0])
    assert layer.rates == [3 / 6, 2 / 6]
    assert layer.mean_rate == pytest.approx(5 / 12)
    assert layer.fired.tolist() == [4, 1, 0] and layer.neurons == 4
    assert (layer.channels, layer.dead, layer.saturated) == (3, 1, 1)
    assert list(layer.maps) == [0]
    torch.testing.assert_close(layer.maps[0], torch.tensor([[1 / 3, 2 / 3]]))


def test_a_layer_that_runs_twice_counts_twice():
    layer = record(trained(), IMAGES)
    assert layer.rates == [5 / 12] and layer.neurons == 4


# Two images of two tokens and of one; of three channels the first fires always, the last never.
TOKENS = [torch.tensor([[[1.0, 0.0, 0.0], [2.0, 1.0, 0.5]]]), torch.tensor([[[1.5, 0.0, -1.0]]])]


def test_channels_of_tokens_are_the_last_dimension():
    layer = record(trained(), *([image] for image in TOKENS), map_images=[0])
    assert layer.fired.tolist() == [3, 1, 0] and layer.neurons == 3 and layer.total == 9
    assert (layer.channels, layer.dead, layer.saturated) == (3, 1, 1)
    assert layer.rates == [3 / 6, 1 / 3] and layer.mean_rate == pytest.approx(4 / 9)
    assert not layer.maps


def test_channels_of_features_are_the_second_dimension():
    layer = record(trained(), *([image[0]] for image in TOKENS))
    assert layer.fired.tolist() == [3, 1, 0] and layer.neurons == 3


def test_channels_with_an_extremum_each_are_those_of_the_neuron():
    """Of tokens too: a level holds for each entry of dimension 1."""
    neuron = HoyerSpike(extremum='channel', num_features=2).eval()
    neuron.running_weight.fill_(1.0)
    neuron.running_extremum.copy_(torch.tensor([0.5, 3.0]))
    layer = record(neuron, [TOKENS[0]])
    assert layer.fired.tolist() == [1, 0] and layer.neurons == 3
    # Of the potentials 1, 0, 0 at level 0.5 and 2, 1, 0.5 at level 3 none is near.
    assert layer.near == 0


def test_a_layer_whose_channels_change_in_number_has_rates_but_no_channels():
    maps = [torch.ones(1, side, 1, 2) for side in (2, 3, 2)]
    maps[0][0, 0] = 0
    net = nn.Sequential(trained())
    recorder = NeuronRecorder(net)
    for x in maps:
        with recorder.image():
            net(x)
    measured = Measurement([], {}, [], recorder.layers, 3, {}, 1)
    (row,) = neuron_rows(measured)
    assert row['spike_rate'] == 12 / 14
    assert (row['spike_rate_min'], row['spike_rate_max']) == (0.5, 1.0)
    assert row['channels'] is row['dead_channels'] is row['saturated_channels'] is None
    found = totals(measured)
    assert (found['spikes'], found['neurons']) == (12 / 3, 14 / 3)
    assert found['channels'] == found['dead_channels'] == found['saturated_channels'] == 0
    assert list(neuron_explanations(measured)) == ['0']  # it fires more often than not


def test_swin_is_recorded_on_images_of_two_sizes():
    init_default_scope('mmdet')
    widths = dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2], mlp_ratio=3)
    places = dict(strides=[4, 2], window_size=4, out_indices=(0, 1))
    net = MODELS.build(dict(type='SwinTransformer', **widths, **places))
    trace = trace_forward(net, ACTIVATIONS, [lambda net: net(torch.rand(1, 3, 32, 32))])
    convert_activations(net, dict(type='HoyerSpike'), trace)
    net.eval()  # returns nothing
    recorder = NeuronRecorder(net)
    for width in (32, 64):
        with torch.no_grad(), recorder.image():
            net(torch.rand(1, 3, 32, width))
    # The hidden layers are three times 8 and 16 wide, at a quarter and an eighth of the sides.
    assert [layer.channels for layer in recorder.layers.values()] == [24, 48]
    assert [layer.neurons for layer in recorder.layers.values()] == [8 * 8 + 8 * 16, 4 * 4 + 4 * 8]


def test_histogram_of_potentials_in_units_of_the_threshold():
    u = torch.tensor([[[[-1.0, 0.1, 1.82, 2.0, 2.1, 2.22, 3.0, 0.5]]]])
    layer = record(nn.Sequential(trained(threshold=-2.0)), [u, torch.full((1, 1, 1, 4), 50.0)])
    assert layer.threshold == 2.0 and layer.levels.tolist() == [1.0]
    assert layer.low == pytest.approx(-0.5, abs=0.01) and layer.high == pytest.approx(1.5, abs=0.01)
    assert layer.total == 12 and layer.above == 4 and layer.below == 0
    assert int(layer.counts.sum()) == 8
    # z = 0.91, 1.0 and 1.05 lie closer to the level 1 than 0.1, 1.11 does not.
    assert layer.near == 3 and layer.near_share == 3 / 12
    step = (layer.high - layer.low) / len(layer.counts)
    filled = [round(layer.low + step * i, 1) for i, n in enumerate(layer.counts.tolist()) if n]
    assert filled[0] == pytest.approx(-0.5, abs=0.06) and filled[-1] == pytest.approx(1.5, abs=0.06)


def test_levels_are_the_corrected_average_by_channel():
    layer = HoyerSpike(extremum='channel', num_features=3, extremum_scale=0.5).eval()
    layer.running_weight.copy_(torch.tensor([0.5, 1.0, 0.0]))
    layer.running_extremum.copy_(torch.tensor([0.4, 0.6, 0.0]))
    torch.testing.assert_close(firing_levels(layer), torch.tensor([0.4, 0.3, 0.5]))
    # The layer itself fires at these levels.
    u = firing_levels(layer).view(1, 3, 1)
    assert layer(u).sum() == 3 and layer(u - 1e-4).sum() == 0
    assert record(layer, [u + 0.05, u + 0.2]).near == 3


def test_potentials_are_what_comes_out_of_the_norm():
    """Also where a block computes norm and neuron in one."""
    torch.manual_seed(0)
    block = SpikingConvBlock(1, 2, 1, act_cfg=dict(type='HoyerSpike', extremum='fixed'))
    x = torch.randn(4, 1, 8, 8)
    block(x)  # one training step for the statistics
    block.norm.bias.data.fill_(3.0)
    block.eval()
    expected, seen, changed = block.norm(block.conv(x)), [], []
    with torch.no_grad():
        spikes = block(x)
        with observe_neurons(block, lambda name, layer, u, o: seen.append((name, u, o))):
            block(x)
        with change_potentials(block, lambda layer, u: changed.append(u) or u - 100):
            assert not block(x).any()
    ((name, potential, observed),) = seen
    assert name == 'act' and torch.equal(observed, spikes)
    torch.testing.assert_close(potential, expected)
    torch.testing.assert_close(changed[0], expected)


def test_maps_are_chosen_by_part_of_the_name_or_spread_over_the_depth():
    names = [f'stage{i}.act' for i in range(9)]
    assert choose_maps(names, None, 3) == [names[0], names[4], names[8]]
    assert choose_maps(names[:2], None, 6) == names[:2]
    assert choose_maps([], None) == []
    assert choose_maps(names, ['stage7', 'stage1.']) == [names[1], names[7]]
    with pytest.raises(ValueError, match='--maps stage9: fits no spiking layer'):
        choose_maps(names, ['stage9'])
