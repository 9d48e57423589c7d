"""Fine-tuning with rounded weights: the grid, the gradient, and that folding stores just these integers."""

import copy

import pytest
import torch
from hoyer_det.backbones import HoyerResNet, HoyerVGG
from hoyer_det.deploy import RoundedConv2d, fold, fold_norms
from hoyer_det.heads import HoyerYOLOV3Head
from hoyer_det.necks import HoyerFPN, HoyerYOLOV3Neck
from hoyer_det.spiking import HoyerSpike
from mmdet.models.backbones import Darknet
from tiny_detectors import shaken
from torch import nn
from torch.nn import functional as F

ACT = dict(type='HoyerSpike', extremum='channel')


def rounded(bits: int) -> dict:
    return dict(type='RoundedConv2d', bits=bits)


def test_weights_by_hand():
    conv = RoundedConv2d(4, 2, 1, bias=False, bits=3)
    # Steps 0.9 / 3 = 0.3 and 1.5 / 3 = 0.5.
    weight = torch.tensor([[0.9, -0.4, 0.5, 0.1], [0.2, -1.5, 0.3, 0.8]])
    conv.weight.data = weight.view(2, 4, 1, 1)
    x = torch.eye(4).view(4, 4, 1, 1).requires_grad_()
    out = conv(x).flatten(1).T
    expected = torch.tensor([[0.9, -0.3, 0.6, 0.0], [0.0, -1.5, 0.5, 1.0]])
    torch.testing.assert_close(out, expected)
    # Gradients: as if the rounded weights were the parameter.
    grad = torch.randn(4, 2, 1, 1)
    conv(x).backward(grad)
    plain = expected.view(2, 4, 1, 1).clone().requires_grad_()
    y = torch.eye(4).view(4, 4, 1, 1).requires_grad_()
    F.conv2d(y, plain).backward(grad)
    torch.testing.assert_close(conv.weight.grad, plain.grad)
    torch.testing.assert_close(x.grad, y.grad)


def test_what_reads_the_image_is_left_and_bits_are_checked():
    conv = RoundedConv2d(3, 4, 3, bits=2)
    x = torch.rand(1, 3, 5, 5)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias))
    with pytest.raises(ValueError, match='bits=9; possible are 2 to 8'):
        RoundedConv2d(4, 4, 1, bits=9)


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_folding_stores_the_integers_of_the_training(bits):
    model = shaken(HoyerVGG(11, 1 / 8, act_cfg=ACT, conv_cfg=rounded(bits), out_indices=(2,)))
    folded = fold(model)
    for name, conv in model.named_modules():
        if isinstance(conv, RoundedConv2d) and conv.in_channels > 3:
            integers, _ = conv.integers()
            stored = folded.get_submodule(name).weight.double()
            assert torch.equal(stored.abs(), integers.abs()) and stored.abs().max() > 0
    layers = {layer.name: layer.bits for layer in folded.folded_layers}
    assert layers.pop('stages.0.0.conv') == 8 and set(layers.values()) == {bits}
    with pytest.raises(ValueError, match=rf'stages.1.0.conv: was trained .* {bits} bits, not 7'):
        fold(model, 7)


@pytest.mark.parametrize('bits', [2, 3, 8])
def test_weights_that_add_to_a_stream_keep_their_integers(bits):
    # A norm is folded into them, and their steps are moved to a grid on which float32 sums are exact.
    model = shaken(HoyerResNet(18, base_channels=8, act_cfg=ACT, conv_cfg=rounded(bits)))
    folded = fold(model)
    compared = 0
    for name, conv in model.named_modules():
        if isinstance(conv, RoundedConv2d) and conv.in_channels > 3:
            plain = folded.get_submodule(name)
            stored = plain.weight.double() / plain.steps.double().view(-1, 1, 1, 1)
            torch.testing.assert_close(stored, stored.round(), rtol=1e-6, atol=0)
            assert torch.equal(stored.abs().round(), conv.integers()[0].abs())
            compared += 1
    assert compared == 16 + 3


def test_int16_limits_training_and_folding_alike():
    block = HoyerVGG(11, 1, act_cfg=ACT, conv_cfg=rounded(8), out_indices=(3,)).stages[3][1]
    block.conv.weight.data.uniform_(0.5, 1.0)
    integers, _ = block.conv.integers()
    assert integers.flatten(1).sum(1).min() > 32000 and integers.abs().max() < 127
    stored = fold(nn.Sequential(HoyerSpike(), block).eval(), size=(8, 8))[1].conv.weight
    assert torch.equal(stored.double().abs(), integers)


@pytest.mark.parametrize(
    'part',
    [
        HoyerFPN([8, 8], 8, num_outs=2, act_cfg=ACT, conv_cfg=rounded(3)),
        HoyerYOLOV3Neck(2, [16, 8], [8, 4], act_cfg=ACT, conv_cfg=rounded(3)),
        HoyerYOLOV3Head(
            num_classes=3,
            in_channels=[8],
            out_channels=[8],
            featmap_strides=[32],
            anchor_generator=dict(type='YOLOAnchorGenerator', base_sizes=[[(8, 8)]], strides=[32]),
            act_cfg=ACT,
            conv_cfg=rounded(3),
        ),
        Darknet(53, act_cfg=ACT, conv_cfg=rounded(3)),
    ],
    ids=lambda part: type(part).__name__,
)
def test_every_part_takes_it(part):
    assert any(isinstance(module, RoundedConv2d) for module in part.modules())


def test_float_file_has_the_rounded_weights():
    model = shaken(HoyerVGG(11, 1 / 8, act_cfg=ACT, conv_cfg=rounded(3), out_indices=(2,)))
    plain = fold_norms(model)
    assert not any(isinstance(module, RoundedConv2d) for module in plain.modules())
    images = torch.randn(1, 3, 64, 64).double()
    with torch.no_grad():
        wanted = copy.deepcopy(model).double()(images)[0]
        found = plain.double()(images)[0]
    assert (wanted != found).double().mean() < 1e-3


def test_weights_of_a_plain_network_fit():
    plain, quantised = (
        HoyerVGG(11, 1 / 8, act_cfg=ACT, conv_cfg=cfg) for cfg in (None, rounded(4))
    )
    assert not torch.equal(quantised.stages[1][0].conv.weight, plain.stages[1][0].conv.weight)
    fit = quantised.load_state_dict(plain.state_dict())
    assert not fit.missing_keys and not fit.unexpected_keys
    assert torch.equal(quantised.stages[1][0].conv.weight, plain.stages[1][0].conv.weight)
