"""Integer weights and levels: a case worked out by hand, bounds, and every structure of the package."""

import copy

import pytest
import torch
from hoyer_det.backbones import HoyerResNet, HoyerVGG
from hoyer_det.backbones.blocks import SpikingConvBlock
from hoyer_det.deploy import FiringLevel, fold
from hoyer_det.deploy.levels import real_level
from hoyer_det.deploy.rounding import integer_steps, round_weights
from hoyer_det.spiking import HoyerSpike
from mmdet.models.backbones import Darknet
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from tiny_detectors import shaken, tiny_config
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class TwoLayers(nn.Module):
    """A layer of spikes, and one 1x1 block that reads them."""

    def __init__(self, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.first = HoyerSpike(extremum='fixed')
        self.block = SpikingConvBlock(
            2, 2, 1, pool=pool, act_cfg=dict(type='HoyerSpike', extremum='fixed')
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(self.first(x))


def by_hand(pool: nn.Module | None = None) -> TwoLayers:
    # Steps 1.27 / 127 = 0.01 and 2.54 / 127 = 0.02. Norm without eps: u = +-1 * p + 0.505, level 1.
    model = TwoLayers(pool)
    model.block.conv.weight.data = torch.tensor([[1.27, -0.4], [2.54, 0.3]]).view(2, 2, 1, 1)
    norm = model.block.norm
    norm.eps = 1e-30  # 0 is refused, and this is lost beside the variance
    norm.weight.data = torch.tensor([1.0, -1.0])
    norm.bias.data = torch.tensor([0.505, 0.505])
    return model


def test_levels_by_hand():
    # Channel 0 fires from p = 0.495, 49.5 steps, so from 50. Channel 1 where -p + 0.505 >= 1,
    # p <= -0.495 or 24.75 steps of the negated sum, so from 25 with the signs turned.
    folded = fold(by_hand())
    assert folded.block.conv.weight.flatten(1).tolist() == [[127, -40], [-127, -15]]
    assert folded.block.act.level.tolist() == [50, 25]
    assert not folded.block.act.invert.any()
    # Behind a pooling it fires on sums above -24.75, from -24, and is inverted.
    folded = fold(by_hand(nn.MaxPool2d(2)), size=(4, 4))
    assert folded.block.conv.weight.flatten(1).tolist() == [[127, -40], [127, 15]]
    assert folded.block.act.level.tolist() == [50, -24]
    assert folded.block.act.invert.tolist() == [False, True]


def test_level_that_is_met_exactly_fires():
    model = by_hand()
    model.block.norm.weight.data[:] = 1.0
    model.block.conv.weight.data = torch.tensor([[127.0, 1.0], [127.0, 1.0]]).view(2, 2, 1, 1)
    model.block.norm.bias.data = torch.tensor([-127.0, -127.5])  # levels 128 and 128.5 steps of 1
    folded = fold(model)
    assert folded.block.act.level.tolist() == [128, 129]
    assert folded(torch.ones(1, 2, 1, 1)).flatten().tolist() == [1, 0]
    assert model.eval()(torch.ones(1, 2, 1, 1)).flatten().tolist() == [1, 0]


def test_scale_of_zero_always_or_never_fires():
    model = by_hand()
    model.block.norm.weight.data = torch.zeros(2)
    model.block.norm.bias.data = torch.tensor([1.0, 0.9])
    folded = fold(model)
    assert folded(torch.rand(1, 2, 3, 3)).mean((0, 2, 3)).tolist() == [1, 0]


@pytest.mark.parametrize('most', [1, 5])
def test_no_sum_leaves_int16(most):
    weight = torch.full((2, 600, 1, 1), 0.5, dtype=torch.float64)
    weight[1] *= -1
    integers, step = integer_steps(weight, 127, most)
    sums = most * integers.flatten(1).sum(1).abs()
    assert (sums <= 32767).all() and (sums > 32767 * 0.9).all()
    torch.testing.assert_close(integers * step.view(-1, 1, 1, 1), weight, rtol=0.2, atol=0)


@pytest.mark.parametrize('most', [1, 3])
def test_no_sum_of_a_read_out_of_spikes_leaves_int16(most):
    conv = nn.Conv2d(600, 2, 1).requires_grad_(False)
    conv.weight[0], conv.weight[1] = 0.5, -0.25
    round_weights(conv, 127, most=most)
    integers = conv.weight / conv.steps.view(-1, 1, 1, 1)
    assert torch.equal(integers, integers.round())
    sums = most * integers.flatten(1).sum(1).abs()
    assert (sums <= 32767).all() and (sums > 32767 * 0.9).all()
    torch.testing.assert_close(conv.weight[0].mean(), torch.tensor(0.5), rtol=0.1, atol=0)


def test_real_levels_compare_as_float64_does():
    theta = torch.tensor([0.1, -0.3, 1.0, 1.0], dtype=torch.float64)
    negative = torch.tensor([False, True, False, True])
    neuron = real_level(theta, negative)
    for channel, value in enumerate(theta.tolist()):
        near = torch.tensor(value, dtype=torch.float32)
        steps = [torch.nextafter(near, torch.tensor(end)) for end in (-9.0, 9.0)] + [near]
        for x in steps:
            fires = x.double() <= value if negative[channel] else x.double() >= value
            spikes = neuron(x.expand(1, 4, 1, 1))
            assert bool(spikes[0, channel]) == bool(fires)


ACT = dict(type='HoyerSpike', extremum='channel')


def test_more_bits_come_closer_and_eight_are_close():
    model = shaken(HoyerVGG(11, 1 / 8, act_cfg=ACT, out_indices=(1,)))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = model(images)[0]
        differ = [(fold(model, bits)(images)[0] != wanted).double().mean() for bits in (8, 4, 2)]
    assert differ[0] < 0.03 < differ[1] < differ[2]
    with pytest.raises(ValueError, match='weights=9 bits; possible are 2 to 8'):
        fold(model, 9)


@pytest.mark.parametrize('depth', [18, 50])
def test_streams_are_exact_in_float32(depth):
    model = shaken(HoyerResNet(depth, base_channels=4, act_cfg=ACT, out_indices=(3,)))
    model.data_preprocessor = DetDataPreprocessor()
    folded = fold(model)
    assert not any(isinstance(module, _BatchNorm) for module in folded.modules())
    neurons = [m for m in folded.modules() if isinstance(m, FiringLevel)]
    assert all(neuron.exact for neuron in neurons) and not all(neuron.integer for neuron in neurons)
    images = torch.randint(0, 256, (2, 3, 64, 64)).float()
    streams: list[list[torch.Tensor]] = []
    for network in (folded, copy.deepcopy(folded).double()):
        seen: list[torch.Tensor] = []
        for module in network.modules():
            if isinstance(module, FiringLevel):
                module.register_forward_hook(lambda m, i, o, to=seen: to.append(i[0].double()))
        network(images.to(next(network.parameters()).dtype))
        streams.append(seen)
    assert len(streams[0]) == len(neurons)
    for single, double in zip(*streams, strict=True):
        assert torch.equal(single, double)


def test_darknet_by_act_cfg_reads_sums_of_spikes(monkeypatch):
    channels = (32, 8), (8, 8), (8, 16), (16, 16), (16, 16)
    monkeypatch.setitem(Darknet.arch_settings, 53, ((1, 2, 8, 1, 1), channels))
    model = shaken(Darknet(53, out_indices=(5,), act_cfg=dict(type='HoyerSpike')), 32)
    folded = fold(model)
    most = {layer.note for layer in folded.folded_layers if layer.kind == 'integer'}
    assert 'reads sums of up to 2 spikes' in most and 'reads sums of up to 9 spikes' in most
    assert not any(isinstance(module, HoyerSpike | _BatchNorm) for module in folded.modules())


@pytest.mark.parametrize(
    'between, padding',
    [
        (nn.MaxPool2d(2), 'zeros'),
        (nn.AvgPool2d(2), 'zeros'),
        (nn.AdaptiveAvgPool2d(4), 'zeros'),
        (nn.Upsample(scale_factor=2, mode='bilinear'), 'zeros'),
        (nn.Identity(), 'reflect'),
    ],
    ids=['maxima', 'means', 'large means', 'interpolated', 'padded by reflection'],
)
def test_what_only_looks_like_spikes_is_read_as_real_values(between, padding):
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), HoyerSpike(8, 'channel'), between),
        nn.Conv2d(8, 16, 3, padding=1, padding_mode=padding),
        *(nn.BatchNorm2d(16), HoyerSpike(16, 'channel')),
    )
    net = shaken(net)
    folded = fold(net, weights=2).double()
    kinds = {layer.name: layer.kind for layer in folded.folded_layers}
    maxima = isinstance(between, nn.MaxPool2d)
    assert kinds['4'] == ('integer' if maxima else 'rounded')
    if not maxima:  # the network with the rounded weights
        net = net.double()
        net[4].weight.data = folded[4].weight.data
        with torch.no_grad():
            read = net[:4](torch.randn(2, 3, 32, 32).double())
            assert torch.equal(folded[4:](read), net[4:](read))


class BesideTheImage(nn.Module):
    """Spikes, and pixels that no convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.data_preprocessor = DetDataPreprocessor(mean=[100.0] * 3, std=[50.0] * 3)
        self.block = SpikingConvBlock(3, 8, 3, act_cfg=ACT)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.block(image), nn.functional.avg_pool2d(image, 2)


def test_normalisation_stays_where_not_convolutions_alone_read_the_image():
    model = shaken(BesideTheImage(), 32)
    folded = fold(model)
    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    outputs = [
        net(net.data_preprocessor(dict(inputs=[pixels], data_samples=None))['inputs'])
        for net in (model, folded)
    ]
    torch.testing.assert_close(outputs[1][1], outputs[0][1])
    assert (outputs[1][0] != outputs[0][0]).double().mean() < 0.05


def test_what_stays_in_float_is_said():
    block = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), HoyerSpike(), SpikingConvBlock(4, 4, 1)
    )
    folded = fold(block.eval())
    kinds = {layer.name: (layer.kind, layer.note) for layer in folded.folded_layers}
    assert kinds['3.conv'][0] == 'integer' and kinds['0'][0] == 'rounded'
    assert kinds['1'][0] == 'float' and kinds['1'][1].startswith('GroupNorm')
    with pytest.raises(ValueError, match='Conv2d has no HoyerSpike'):
        fold(nn.Conv2d(3, 4, 3))


def test_a_group_norm_on_the_coarsest_map_has_more_than_one_position():
    model = copy.deepcopy(tiny_config('fcos').model)
    model.neck.num_outs = 6  # strides of 4 to 128
    model.bbox_head.update(strides=[4, 8, 16, 32, 64, 128], norm_cfg=dict(type='GN', num_groups=8))
    assert fold(MODELS.build(model)).folded_layers
