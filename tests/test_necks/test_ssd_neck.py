"""HoyerSSDNeck: levels, spikes and errors."""

import pytest
import torch
from hoyer_det.necks import HoyerSSDNeck
from hoyer_det.spiking import spiking_layers
from mmdet.registry import MODELS
from torch import nn

SSD300 = dict(
    in_channels=(16, 32),
    out_channels=(16, 32, 16, 8, 8, 8),
    level_strides=(2, 2, 1, 1),
    level_paddings=(1, 1, 0, 0),
)
SSD512 = dict(
    in_channels=(16, 32),
    out_channels=(16, 32, 16, 8, 8, 8, 8),
    level_strides=(2, 2, 2, 2, 1),
    level_paddings=(1, 1, 1, 1, 1),
    last_kernel_size=4,
)


def spikes(*sides: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return tuple(
        torch.randint(0, 2, (4, channels, side, side)).float()
        for channels, side in zip((16, 32), sides, strict=True)
    )


@pytest.mark.parametrize(
    ('options', 'sides'),
    [(SSD300, (38, 19, 10, 5, 3, 1)), (SSD512, (64, 32, 16, 8, 4, 2, 1))],
    ids=['300', '512'],
)
def test_levels_are_those_of_ssd_and_hold_spikes(options, sides):
    neck = MODELS.build(dict(type='HoyerSSDNeck', **options))
    assert isinstance(neck, HoyerSSDNeck)
    neck.init_weights()
    given = spikes(*sides[:2])
    outs = neck(given)
    channels = options['out_channels']
    assert [tuple(out.shape) for out in outs] == [
        (4, c, side, side) for c, side in zip(channels, sides, strict=True)
    ]
    assert outs[0] is given[0] and outs[1] is given[1]
    for out in outs[2:]:
        assert sorted(out.unique().tolist()) == [0, 1]
    for out in neck.eval()(given):
        assert set(out.unique().tolist()) <= {0, 1}


def test_each_extra_level_halves_the_channels_by_a_1x1_convolution_first():
    neck = HoyerSSDNeck(**SSD512)
    shapes = [tuple(m.weight.shape) for m in neck.modules() if isinstance(m, nn.Conv2d)]
    expected, before = [], 32
    for channels in (16, 8, 8, 8, 8):
        expected += [(channels // 2, before, 1, 1), (channels, channels // 2, 3, 3)]
        before = channels
    expected[-1] = (8, 4, 4, 4)
    assert shapes == expected
    assert all(m.bias is None for m in neck.modules() if isinstance(m, nn.Conv2d))


def test_every_parameter_gets_a_finite_gradient():
    neck = HoyerSSDNeck(**SSD300, act_cfg=dict(type='HoyerSpike', extremum='channel'))
    neck.init_weights()
    # The neurons know their channels before the first batch.
    widths = [layer.running_extremum.numel() for layer in spiking_layers(neck).values()]
    assert widths == [8, 16, 4, 8, 4, 8, 4, 8]
    sum((out * torch.randn_like(out)).sum() for out in neck(spikes(38, 19))).backward()
    for name, parameter in neck.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_relu_twin_hands_out_real_values():
    neck = HoyerSSDNeck(**SSD300, act_cfg=dict(type='ReLU'))
    assert not spiking_layers(neck)
    assert neck(spikes(38, 19))[2].unique().numel() > 2


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(in_channels=(16, 24)), r'begin with in_channels \(16, 24\), got \(16, 32, '),
        (dict(level_strides=(2, 2, 1)), 'adds 4 levels, level_strides gives 3'),
        (dict(level_paddings=(1, 1, 0, 0, 0)), 'level_paddings 5'),
        (dict(out_channels=(16, 32), level_strides=(), level_paddings=()), 'adds 0 levels'),
    ],
)
def test_lists_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=f'HoyerSSDNeck: .*{message}'):
        HoyerSSDNeck(**{**SSD300, **change})
