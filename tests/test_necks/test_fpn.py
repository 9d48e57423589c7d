"""HoyerFPN: levels against MMDetection's FPN, spikes and sums by hand, gradients, errors."""

from pathlib import Path

import mmdet
import pytest
import torch
from hoyer_det.necks import HoyerFPN
from hoyer_det.spiking import spiking_layers
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn
from torch.nn import functional as F

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
IN_CHANNELS = [4, 6, 8, 10]
EXTRA = [False, 'on_input', 'on_lateral', 'on_output', True]


def spikes(channels=IN_CHANNELS, side: int = 33, dtype=torch.float32) -> tuple[Tensor, ...]:
    """Levels of spikes whose sides halve, rounded up."""
    torch.manual_seed(0)
    return tuple(
        torch.randint(0, 2, (2, c, -(-side // 2**i), -(-side // 2**i) + 1)).to(dtype)
        for i, c in enumerate(channels)
    )


def prepared(*args, **kwargs) -> HoyerFPN:
    """A narrow, initialised neck."""
    torch.manual_seed(0)
    neck = HoyerFPN(*(args or (IN_CHANNELS, 8)), **kwargs)
    neck.init_weights()
    return neck


@pytest.mark.parametrize('add_extra_convs', EXTRA)
@pytest.mark.parametrize(
    'levels',
    [
        dict(num_outs=4),
        dict(num_outs=6),
        dict(num_outs=5, start_level=1),
        dict(num_outs=2, start_level=2),
        dict(num_outs=3, end_level=2),
        dict(num_outs=2, start_level=1, end_level=2),
        dict(num_outs=5, start_level=1, end_level=3),
        dict(num_outs=4, start_level=3),
    ],
    ids=str,
)
def test_levels_are_those_of_mmdetections_fpn(levels, add_extra_convs):
    options = dict(
        in_channels=IN_CHANNELS, out_channels=8, add_extra_convs=add_extra_convs, **levels
    )
    neck = MODELS.build(dict(type='HoyerFPN', **options))
    assert isinstance(neck, HoyerFPN)
    given = spikes()
    reference = MODELS.build(dict(type='FPN', **options))
    with torch.no_grad():
        shapes, expected = ([out.shape for out in net(given)] for net in (neck, reference))
    assert shapes == expected
    weights, expected = (
        [m.weight.shape for m in net.modules() if isinstance(m, nn.Conv2d)]
        for net in (neck, reference)
    )
    assert weights == expected


@pytest.mark.parametrize('extremum', ['layer', 'channel'])
@pytest.mark.parametrize('add_extra_convs', EXTRA)
def test_every_convolution_reads_spikes_and_every_level_is_spikes(add_extra_convs, extremum):
    neck = prepared(
        num_outs=6,
        add_extra_convs=add_extra_convs,
        act_cfg=dict(type='HoyerSpike', extremum=extremum),
    )
    for module in neck.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # evaluation takes over the statistics of these spikes
    read, sums = {}, {}

    def note(seen, name):
        def hook(module, inputs):
            seen.setdefault(name, set()).update(inputs[0].unique()[:4].tolist())

        return hook

    for name, module in neck.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(note(read, name))
        elif name.endswith('.spike'):
            module.register_forward_pre_hook(note(sums, name))
    for training in (True, False):
        read.clear()
        with torch.no_grad():
            outs = neck.train(training)(spikes(side=48))
        assert len(read) == sum(isinstance(m, nn.Conv2d) for m in neck.modules())
        for name, found in read.items():
            assert found == {0, 1}, f'{name} reads {found}'
        assert all(out.unique().tolist() == [0, 1] for out in outs[:4])
        assert all(set(out.unique().tolist()) <= {0, 1} for out in outs)
    # Only the sums are real-valued, those of the laterals and the one of 'on_lateral'.
    assert len(sums) == 4 + (add_extra_convs == 'on_lateral')
    assert all(len(found) >= 4 for found in sums.values())


def fire(x: Tensor, act: nn.Module) -> Tensor:
    """The spikes of a layer at its batch's extremum, or what ReLU leaves."""
    if isinstance(act, nn.ReLU):
        return x.clamp(min=0)
    clipped = x.clamp(0, 1)
    return (x >= clipped.square().sum() / clipped.sum()).to(x.dtype)


def convolved(x: Tensor, module: nn.Module, **options) -> Tensor:
    """Convolution and norm of a ``ConvModule``, by hand."""
    x = F.conv2d(x, module.conv.weight, module.conv.bias, **options)
    if not module.with_norm:
        return x
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    weight, bias = (p.view(1, -1, 1, 1) for p in (module.norm.weight, module.norm.bias))
    return (x - mean) / (var + module.norm.eps).sqrt() * weight + bias


def upsampled(x: Tensor, side: torch.Size) -> Tensor:
    """The nearest of the coarser level's entries for each entry of the finer one."""
    rows, columns = (torch.arange(n) * m // n for n, m in zip(side, x.shape[2:], strict=True))
    return x[:, :, rows][:, :, :, columns]


@pytest.mark.parametrize(
    'options', [dict(), dict(no_norm_on_lateral=True), dict(act_cfg=dict(type='ReLU'))], ids=str
)
@pytest.mark.parametrize('add_extra_convs', ['on_input', 'on_lateral', 'on_output', False])
def test_network_by_hand(add_extra_convs, options):
    neck = prepared(
        num_outs=5, start_level=1, add_extra_convs=add_extra_convs, bias_spread=0.5, **options
    ).double()
    given = spikes(dtype=torch.float64)
    sums = {}
    for index in range(3):
        neck.fpn_convs[index].spike.register_forward_pre_hook(
            lambda m, i, n=index: sums.update({n: i[0]})
        )
    outs = neck(given)
    laterals = [
        convolved(x, module) for x, module in zip(given[1:], neck.lateral_convs, strict=True)
    ]
    for index in (1, 0):
        laterals[index] = laterals[index] + upsampled(
            laterals[index + 1], laterals[index].shape[2:]
        )
    # What is added is a potential.
    for index in range(3):
        torch.testing.assert_close(sums[index], laterals[index])
    expected = []
    for x, layers in zip(laterals, neck.fpn_convs[:3], strict=True):
        x = convolved(fire(x, layers.spike), layers.conv, padding=1)
        expected.append(fire(x, layers.act))
    if add_extra_convs:
        x = dict(on_input=given[-1], on_lateral=laterals[-1], on_output=expected[-1])[
            add_extra_convs
        ]
        for layers in neck.fpn_convs[3:]:
            if hasattr(layers, 'spike'):
                assert add_extra_convs == 'on_lateral' and layers is neck.fpn_convs[3]
                x = fire(x, layers.spike)
            x = fire(convolved(x, layers.conv, stride=2, padding=1), layers.act)
            expected.append(x)
    else:
        expected.append(expected[-1][:, :, ::2, ::2])
        expected.append(expected[-1][:, :, ::2, ::2])
    for a, b in zip(outs, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('act', ['HoyerSpike', 'ReLU'])
@pytest.mark.parametrize('add_extra_convs', EXTRA)
def test_every_parameter_and_input_gets_a_finite_gradient(add_extra_convs, act):
    neck = prepared(
        num_outs=5, start_level=1, add_extra_convs=add_extra_convs, act_cfg=dict(type=act)
    )
    given = [level.requires_grad_() for level in spikes(side=64)]
    outs = neck(given)
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    reached = [*neck.named_parameters(), *((f'level {i}', x) for i, x in enumerate(given) if i)]
    for name, tensor in reached:
        assert torch.isfinite(tensor.grad).all(), name
        assert tensor.grad.abs().sum() > 0, name
    assert given[0].grad is None  # below start_level


def test_relu_twin_hands_out_real_values_and_has_no_thresholds():
    spiking = prepared(num_outs=5, add_extra_convs=True)
    twin = prepared(num_outs=5, add_extra_convs=True, act_cfg=dict(type='ReLU'))
    assert not spiking_layers(twin) and len(spiking_layers(spiking)) == 2 * 4 + 1
    names = {n: p.shape for n, p in spiking.named_parameters() if not n.endswith('.threshold')}
    assert names == {n: p.shape for n, p in twin.named_parameters()}
    assert all(out.unique().numel() > 2 for out in twin(spikes()))


def test_relu_before_extra_convs_changes_nothing():
    outs = [
        prepared(num_outs=6, add_extra_convs='on_output', relu_before_extra_convs=relu)(spikes())
        for relu in (False, True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*outs, strict=True))


@pytest.mark.parametrize(
    'name',
    [
        '_base_/models/retinanet_r50_fpn.py',
        '_base_/models/faster-rcnn_r50_fpn.py',
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        'atss/atss_r50_fpn_1x_coco.py',
        'fsaf/fsaf_r50_fpn_1x_coco.py',
        'foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
    ],
)
def test_takes_the_arguments_of_mmdetections_configs(name):
    cfg = Config.fromfile(CONFIGS / name).model.neck
    assert cfg.type == 'FPN'
    cfg.update(in_channels=IN_CHANNELS, out_channels=8)
    given = spikes(side=64)
    expected = MODELS.build(cfg)(given)
    neck = MODELS.build({**cfg, 'type': 'HoyerFPN'})
    neck.init_weights()
    outs = neck(given)
    assert [out.shape for out in outs] == [out.shape for out in expected]
    assert all(set(out.unique().tolist()) <= {0, 1} for out in outs)


def test_channels_are_known_before_the_first_batch():
    neck = prepared(
        num_outs=6,
        add_extra_convs='on_lateral',
        act_cfg=dict(type='HoyerSpike', extremum='channel'),
    )
    layers = spiking_layers(neck)
    assert [layer.running_extremum.numel() for layer in layers.values()] == [8] * (2 * 4 + 3)
    average = ExponentialMovingAverage(neck, momentum=0.25, update_buffers=True)
    neck(spikes())
    average.update_parameters(neck)
    first = {name: tensor.clone() for name, tensor in neck.state_dict().items()}
    neck(tuple(1 - level for level in spikes()))
    average.update_parameters(neck)
    name = 'fpn_convs.0.act.running_extremum'
    expected = 0.75 * first[name] + 0.25 * neck.state_dict()[name]
    assert not torch.equal(first[name], neck.state_dict()[name])
    torch.testing.assert_close(average.module.state_dict()[name], expected)


def test_spread_biases_reach_spiking_norms_alone_and_leave_a_checkpoint_alone(tmp_path):
    spiking = prepared(num_outs=6, add_extra_convs=True, bias_spread=0.5)
    norms = [m for m in spiking.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 4 + 6
    for norm in norms:
        assert norm.bias.ne(0).all() and norm.bias.abs().max() <= 0.5 and norm.weight.eq(1).all()
    twin = prepared(num_outs=6, bias_spread=0.5, act_cfg=dict(type='ReLU'))
    assert all(m.bias.eq(0).all() for m in twin.modules() if isinstance(m, nn.BatchNorm2d))
    file = tmp_path / 'neck.pth'
    torch.save(dict(state_dict=spiking.state_dict()), file)
    loaded = HoyerFPN(
        IN_CHANNELS,
        8,
        num_outs=6,
        add_extra_convs=True,
        bias_spread=0.5,
        init_cfg=dict(type='Pretrained', checkpoint=str(file)),
    )
    loaded.init_weights()
    expected = spiking.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


def test_trains_in_bfloat16():
    neck = prepared(num_outs=5, add_extra_convs='on_output')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outs = neck(spikes(side=64))
        loss = sum((out * torch.randn_like(out)).sum() for out in outs)
    loss.backward()
    assert all(set(out.unique().tolist()) <= {0, 1} for out in outs)
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in neck.parameters())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_outs=3), 'num_outs must be at least 4, .* start_level=0 to end_level=-1, got 3'),
        (dict(num_outs=2, start_level=1), 'num_outs must be at least 3, .* got 2'),
        (
            dict(num_outs=4, end_level=2),
            'num_outs must be 3, .* start_level=0 to end_level=2, got 4',
        ),
        (dict(num_outs=4, end_level=4), 'end_level=4 must name levels, .* of the 4 in in_channels'),
        (dict(num_outs=4, end_level=-2), 'end_level=-2 must name levels'),
        (dict(num_outs=4, start_level=4), 'start_level=4 .* must name levels'),
        (dict(num_outs=1, start_level=2, end_level=1), 'start_level=2 and end_level=1 must name'),
        (dict(num_outs=4, start_level=-1), 'start_level=-1 .* must name levels'),
        (dict(num_outs=5, add_extra_convs='on_outputs'), "add_extra_convs .* got 'on_outputs'"),
        (dict(num_outs=4, act_cfg=None), 'act_cfg must name an activation'),
    ],
)
def test_wrong_arguments_are_named_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        HoyerFPN(IN_CHANNELS, 8, **options)
    assert '\n' not in str(error.value)
