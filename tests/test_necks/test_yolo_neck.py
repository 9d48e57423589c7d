"""HoyerYOLOV3Neck: MMDetection's neck where the activation is its own, spikes, channels, errors."""

import copy

import pytest
import torch
from hoyer_det.necks import HoyerYOLOV3Neck
from hoyer_det.spiking import spiking_layers
from mmdet.registry import MODELS
from mmengine.model import ExponentialMovingAverage, PretrainedInit
from torch import Tensor, nn

CHANNELS = dict(num_scales=3, in_channels=[16, 8, 4], out_channels=[8, 4, 2])
LEAKY = dict(type='LeakyReLU', negative_slope=0.1)
# Filters of each block, then of the 1x1 convolution before up-sampling.
WIDTHS = [8, 16, 8, 16, 8] + [4] + [4, 8, 4, 8, 4] + [2] + [2, 4, 2, 4, 2]


def spikes() -> tuple[Tensor, ...]:
    """Levels of a backbone, from the finest to the coarsest."""
    torch.manual_seed(0)
    shapes = ((4, 4, 32, 40), (4, 8, 16, 20), (4, 16, 8, 10))
    return tuple(torch.randint(0, 2, shape).float() for shape in shapes)


def prepared(**options) -> HoyerYOLOV3Neck:
    """A narrow, initialised neck."""
    torch.manual_seed(0)
    neck = HoyerYOLOV3Neck(**{**CHANNELS, **options})
    neck.init_weights()
    return neck


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def test_with_its_activation_it_is_mmdetections_neck():
    neck = prepared(act_cfg=LEAKY)
    reference = MODELS.build(dict(type='YOLOV3Neck', **CHANNELS))
    reference.load_state_dict(neck.state_dict())
    given = tuple(torch.randn_like(level) for level in spikes())
    for training in (True, False):
        outs, expected = neck.train(training)(given), reference.train(training)(given)
        assert all(torch.equal(a, b) for a, b in zip(outs, expected, strict=True))


def test_spiking_neck_has_its_weights_besides_one_threshold_a_neuron():
    neck = MODELS.build(dict(type='HoyerYOLOV3Neck', **CHANNELS))
    assert isinstance(neck, HoyerYOLOV3Neck)
    reference = MODELS.build(dict(type='YOLOV3Neck', **CHANNELS))
    names = {n: p.shape for n, p in neck.named_parameters() if not n.endswith('.threshold')}
    assert names == {n: p.shape for n, p in reference.named_parameters()}
    assert len(spiking_layers(neck)) == len(WIDTHS)


@pytest.mark.parametrize('extremum', ['layer', 'channel', 'fixed'])
def test_every_convolution_reads_spikes_and_every_level_is_spikes(extremum):
    neck = prepared(act_cfg=dict(type='HoyerSpike', extremum=extremum), bias_spread=1.0)
    for norm in norms(neck):
        norm.momentum = 1.0  # evaluation takes over the statistics of these spikes
    read = {}
    for name, module in neck.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(
                lambda m, i, n=name: read.update({n: i[0].unique().tolist()})
            )
    for training in (True, False):
        read.clear()
        with torch.no_grad():
            outs = neck.train(training)(spikes())
        assert len(read) == len(WIDTHS)
        for name, found in read.items():
            assert found == [0, 1], f'{name} reads {found[:4]}'
        assert [tuple(out.shape) for out in outs] == [(4, 8, 8, 10), (4, 4, 16, 20), (4, 2, 32, 40)]
        assert all(out.unique().tolist() == [0, 1] for out in outs)


def test_upsampled_spikes_are_joined_with_those_of_the_backbone():
    neck, joined = prepared(), {}
    neck.conv1.register_forward_hook(lambda m, i, o: joined.update(coarse=o))
    neck.detect2.register_forward_pre_hook(lambda m, i: joined.update(both=i[0]))
    given = spikes()
    neck(given)
    copies = joined['coarse'].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(joined['both'], torch.cat((copies, given[1]), dim=1))


def test_every_parameter_gets_a_finite_gradient():
    for act_cfg in (dict(type='HoyerSpike'), LEAKY):
        neck = prepared(act_cfg=act_cfg, bias_spread=0.5)
        sum((out * torch.randn_like(out)).sum() for out in neck(spikes())).backward()
        for name, parameter in neck.named_parameters():
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_spread_biases_survive_initialisation_and_leave_other_activations_alone():
    # `ConvModule` sets the biases of its norm to 0 when it is initialised.
    spiking = prepared(bias_spread=0.5)
    assert len(norms(spiking)) == len(WIDTHS)
    for norm in norms(spiking):
        assert norm.bias.ne(0).all() and norm.bias.abs().max() <= 0.5 and norm.weight.eq(1).all()
    biases = torch.cat([norm.bias for norm in norms(prepared(bias_spread=2.0))])
    assert 1 < biases.abs().max() <= 2
    for options in (dict(), dict(bias_spread=0.5, act_cfg=LEAKY)):
        assert all(norm.bias.eq(0).all() for norm in norms(prepared(**options)))


def test_initialising_again_leaves_trained_biases_alone():
    neck = prepared(bias_spread=0.5)
    expected = copy.deepcopy(neck.state_dict())
    neck.init_weights()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in neck.state_dict().items())


@pytest.mark.parametrize(('as_list', 'kind'), [(False, 'Pretrained'), (True, PretrainedInit)])
def test_pretrained_initialisation_keeps_the_biases_of_the_checkpoint(tmp_path, as_list, kind):
    source = prepared(bias_spread=0.5)
    file = tmp_path / 'neck.pth'
    torch.save(dict(state_dict=source.state_dict()), file)
    init_cfg = dict(type=kind, checkpoint=str(file))
    neck = HoyerYOLOV3Neck(
        **CHANNELS, bias_spread=0.5, init_cfg=[init_cfg] if as_list else init_cfg
    )
    neck.init_weights()
    expected = source.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in neck.state_dict().items())


def test_channels_are_known_before_the_first_batch():
    neck = prepared(act_cfg=dict(type='HoyerSpike', extremum='channel'))
    found = [layer.running_extremum.numel() for layer in spiking_layers(neck).values()]
    assert found == WIDTHS
    # What EMAHook does: a copy before training, averaged with the model after each step.
    average = ExponentialMovingAverage(neck, momentum=0.25, update_buffers=True)
    neck(spikes())
    average.update_parameters(neck)
    first = copy.deepcopy(neck.state_dict())
    neck(tuple(level * (torch.rand_like(level) < 0.5) for level in spikes()))
    average.update_parameters(neck)
    for name, tensor in average.module.state_dict().items():
        if '.running_' in name:
            expected = 0.75 * first[name] + 0.25 * neck.state_dict()[name]
            assert not torch.equal(first[name], neck.state_dict()[name]), name
            torch.testing.assert_close(tensor, expected)


def test_trains_in_bfloat16():
    neck = prepared()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outs = neck(spikes())
        loss = sum((out * torch.randn_like(out)).sum() for out in outs)
    loss.backward()
    assert all(out.unique().tolist() == [0, 1] for out in outs)
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in neck.parameters())


@pytest.mark.parametrize(
    'change', [dict(num_scales=2), dict(in_channels=(16, 8)), dict(out_channels=(8, 4, 2, 1))]
)
def test_lists_that_do_not_fit_are_named(change):
    options = {**CHANNELS, **change}
    with pytest.raises(ValueError, match='HoyerYOLOV3Neck: num_scales=') as error:
        HoyerYOLOV3Neck(**options)
    message = str(error.value)
    assert '\n' not in message
    for name in ('in_channels', 'out_channels'):
        assert f'{name} {tuple(options[name])}' in message
    assert f'num_scales={options["num_scales"]} ' in message
