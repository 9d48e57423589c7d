"""Shortcuts of backbone and necks against a forward pass written by hand in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hoyer_det.backbones import HoyerVGG
from hoyer_det.backbones.shortcut import Shortcut
from hoyer_det.necks import HoyerSSDNeck, HoyerYOLOV3Neck
from hoyer_det.spiking import spiking_layers
from torch import Tensor, nn

SPIKE = dict(type='HoyerSpike', extremum='channel')
RELU = dict(type='ReLU')
NECK = dict(in_channels=(8, 16), out_channels=(8, 16, 12, 8), level_strides=(2, 1))


def backbone(act_cfg: dict = SPIKE, **options) -> HoyerVGG:
    torch.manual_seed(0)
    options = dict(width=1 / 64, ssd_tail=True, bias_spread=1.0) | options
    net = HoyerVGG(11, shortcut=True, act_cfg=act_cfg, **options)
    net.init_weights()
    return net


def neck(act_cfg: dict = SPIKE) -> HoyerSSDNeck:
    torch.manual_seed(1)
    # The second level has a convolution without padding, and channels shrink 16 -> 6, 12 -> 4.
    net = HoyerSSDNeck(
        **NECK, level_paddings=(1, 0), shortcut=True, act_cfg=act_cfg, bias_spread=1.0
    )
    net.init_weights()
    return net


def images(side: int = 38) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2)).double()


def by_places(stream: Tensor, like: Tensor, stride: int, beyond: int) -> Tensor:
    """Maxima over the window of each output, cut at the border; channels one by one."""
    n, channels, rows, columns = like.shape
    group = -(-stream.shape[1] // channels)
    out = torch.empty_like(like)
    for i in range(rows):
        for j in range(columns):
            window = (slice(k * stride, k * stride + stride + beyond) for k in (i, j))
            best = stream[(..., *window)].amax((2, 3))
            for c in range(channels):
                sources = [(c * group + g) % stream.shape[1] for g in range(group)]
                out[:, c, i, j] = best[:, sources].mean(1)
    return out


def neuron(layer: nn.Module, u: Tensor) -> Tensor:
    """The activation; for a neuron in training with a surrogate that autograd differentiates."""
    if isinstance(layer, nn.ReLU):
        return u.clamp(min=0)
    v = layer.threshold.abs()
    z = u / v
    if layer.training:
        c = z.detach().clamp(0, 1)
        first, second = c.sum((0, 2, 3)), c.square().sum((0, 2, 3))
        level = torch.where(first > 0, second / first, 1.0)
    else:
        level = layer.running_extremum / layer.running_weight
    box = 0.5 * z.clamp(0, 2)
    return (z >= level.view(-1, 1, 1)).double() + (box - box.detach())  # exactly 0 or 1


def by_hand(
    blocks: list[nn.Module],
    strides: list[tuple[int, int]],
    x: Tensor,
    stream: Tensor | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Spikes of blocks in a row, and the last potential; without a stream the first of them begins it."""
    spikes = [x]
    for block, (stride, beyond) in zip(blocks, strides, strict=True):
        if isinstance(block, nn.MaxPool2d):
            spikes.append(block(spikes[-1]))
            stream = by_places(stream, spikes[-1], 2, 0)
            continue
        conv, norm = block.conv, block.norm
        y = F.conv2d(spikes[-1], conv.weight, None, conv.stride, conv.padding, conv.dilation)
        if hasattr(block, 'pool'):
            pool = block.pool
            y = F.max_pool2d(y, pool.kernel_size, pool.stride, pool.padding, 1, pool.ceil_mode)
        mean, var = norm.running_mean, norm.running_var
        if norm.training:
            mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
        mean, var, weight, bias = (t.view(-1, 1, 1) for t in (mean, var, norm.weight, norm.bias))
        y = (y - mean) / (var + norm.eps).sqrt() * weight + bias
        stream = y if stream is None else y + by_places(stream, y, stride, beyond)
        spikes.append(neuron(block.act, stream))
    return spikes, stream


def backbone_by_hand(net: HoyerVGG, x: Tensor) -> tuple[Tensor, ...]:
    blocks = [block for stage in net.stages for block in stage]
    blocks.insert(6, net.pool4)
    halved = {0, 1, 3}  # stages 0 to 2 end here; stage 4 has a pooling of stride 1
    spikes, _ = by_hand(blocks, [(2 if i in halved else 1, 0) for i in range(len(blocks))], x)
    return spikes[6], spikes[-1]


def neck_by_hand(
    net: HoyerSSDNeck, inputs: tuple[Tensor, ...], stream: Tensor | None
) -> tuple[Tensor, ...]:
    blocks = [block for layer in net.extra_layers for block in layer]
    spikes, _ = by_hand(blocks, [(1, 0), (2, 0), (1, 0), (1, 2)], inputs[-1], stream)
    return *inputs, spikes[2], spikes[4]


def yolo_neck(act_cfg: dict = SPIKE) -> HoyerYOLOV3Neck:
    torch.manual_seed(1)
    net = HoyerYOLOV3Neck(3, (16, 8, 4), (8, 4, 6), shortcut=True, act_cfg=act_cfg, bias_spread=1.0)
    net.init_weights()
    return net


def yolo_neck_by_hand(
    net: HoyerYOLOV3Neck, levels: tuple[Tensor, ...], stream: Tensor | None
) -> tuple[Tensor, ...]:
    spikes, outs = levels[-1], []
    for index, detect in enumerate((net.detect1, net.detect2, net.detect3)):
        if index:
            up = [net.conv1, net.conv2][index - 1]
            (_, coarse), stream = by_hand([up], [(1, 0)], spikes, stream)
            coarse, stream = (
                x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in (coarse, stream)
            )
            spikes = torch.cat((coarse, levels[-1 - index]), 1)
        rows, stream = by_hand(list(detect.children()), [(1, 0)] * 5, spikes, stream)
        spikes = rows[-1]
        outs.append(spikes)
    return tuple(outs)


# By hand, windows are cut at the border, so 38 (19, 10, 5) needs ceil_mode.
@pytest.mark.parametrize(('ceil_mode', 'side'), [(True, 38), (False, 32)])
@pytest.mark.parametrize('act_cfg', [SPIKE, RELU], ids=['spikes', 'twin'])
def test_backbone_equals_a_forward_pass_by_hand(act_cfg, ceil_mode, side):
    net, x = backbone(act_cfg, ceil_mode=ceil_mode).double(), images(side)
    for training in (True, True, False):
        net.train(training)
        for found, wanted in zip(net(x), backbone_by_hand(net, x), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
            assert found.std() > 0
            assert act_cfg is RELU or set(found.unique().tolist()) == {0, 1}


@pytest.mark.parametrize('handed_in', [True, False])
@pytest.mark.parametrize('act_cfg', [SPIKE, RELU], ids=['spikes', 'twin'])
def test_neck_equals_a_forward_pass_by_hand(act_cfg, handed_in):
    draw = torch.Generator().manual_seed(3)
    stream = torch.randn(3, 16, 7, 7, generator=draw).double()
    first = torch.randint(0, 2, (3, 8, 14, 14), generator=draw).double()
    given = first, (stream > 0.5).double()
    inputs = (*given, stream) if handed_in else given
    net = neck(act_cfg).double()
    for training in (True, False):
        net.train(training)
        found, wanted = net(inputs), neck_by_hand(net, given, stream if handed_in else None)
        assert [f.shape[-1] for f in found] == [14, 7, 4, 2]
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('handed_in', [True, False])
@pytest.mark.parametrize('act_cfg', [SPIKE, RELU], ids=['spikes', 'twin'])
def test_neck_of_yolov3_equals_a_forward_pass_by_hand(act_cfg, handed_in):
    draw = torch.Generator().manual_seed(3)
    stream = torch.randn(3, 16, 3, 4, generator=draw).double()
    shapes = (3, 4, 12, 16), (3, 8, 6, 8)
    levels = [torch.randint(0, 2, shape, generator=draw).double() for shape in shapes]
    levels.append((stream > 0.5).double())
    inputs = (*levels, stream) if handed_in else levels
    net = yolo_neck(act_cfg).double()
    for training in (True, False):
        net.train(training)
        wanted = yolo_neck_by_hand(net, levels, stream if handed_in else None)
        for a, b in zip(net(inputs), wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
            assert a.std() > 0
            assert act_cfg is RELU or set(a.unique().tolist()) == {0, 1}


@pytest.mark.parametrize('out_indices', [(0, 3), (3, 5)])
def test_stream_handed_out_is_the_potential_of_the_last_spikes(out_indices):
    net = backbone(out_indices=out_indices, out_stream=True).eval()
    *spikes, stream = net(images(32).float())
    *_, last = spiking_layers(net).values()
    assert len(spikes) == 2 and torch.equal(last(stream), spikes[-1])
    with pytest.raises(ValueError, match='HoyerVGG: out_stream=True needs shortcut=True'):
        HoyerVGG(11, out_stream=True)


def test_number_of_features_that_does_not_fit_is_named():
    plain = HoyerSSDNeck(**NECK, level_paddings=(1, 0))
    one = torch.zeros(1, 1, 1, 1)
    plain_yolo = HoyerYOLOV3Neck(2, (1, 1), (1, 1))
    shortcut = yolo_neck()
    for net, levels, maps in (
        *((plain, 2, 3), (plain, 2, 1), (neck(), 2, 4)),
        *((plain_yolo, 2, 3), (plain_yolo, 2, 1), (shortcut, 3, 5)),
    ):
        name = type(net).__name__
        with pytest.raises(ValueError, match=f'{name}: .* {levels} levels.* hands in {maps} '):
            net((one,) * maps)


def test_gradients_equal_those_of_the_forward_pass_by_hand():
    net, x = backbone(ceil_mode=True).double(), images()
    by_autograd = copy.deepcopy(net)
    draw = torch.Generator().manual_seed(4)
    for model, outs in ((net, net(x)), (by_autograd, backbone_by_hand(by_autograd, x))):
        draw.manual_seed(4)
        weights = [torch.randn(out.shape, generator=draw).double() for out in outs]
        loss = sum((out * w).sum() for out, w in zip(outs, weights, strict=True))
        model.zero_grad()
        loss.backward()
    for (name, a), b in zip(net.named_parameters(), by_autograd.parameters(), strict=True):
        assert a.grad.abs().sum() > 0, name
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-10)


def test_weights_are_those_of_a_network_without_shortcuts():
    for with_shortcut, without in (
        (backbone(), HoyerVGG(11, 1 / 64, ssd_tail=True, act_cfg=SPIKE)),
        (neck(), HoyerSSDNeck(**NECK, level_paddings=(1, 0), act_cfg=SPIKE)),
    ):
        shapes = {name: value.shape for name, value in with_shortcut.state_dict().items()}
        assert shapes == {name: value.shape for name, value in without.state_dict().items()}
    yolo = {k: p.shape for k, p in yolo_neck().named_parameters()}
    plain = HoyerYOLOV3Neck(3, (16, 8, 4), (8, 4, 6), act_cfg=SPIKE).named_parameters()
    assert list(yolo.values()) == [p.shape for _, p in plain]
    twin = {name for name, _ in backbone(RELU).named_parameters()}
    neurons = {f'{name}.threshold' for name in spiking_layers(backbone())}
    assert {name for name, _ in backbone().named_parameters()} == twin | neurons


@pytest.mark.parametrize(
    ('channels', 'wanted'),
    [((2, 5), [0, 1, 0, 1, 0]), ((4, 2), [0.5, 2.5]), ((3, 2), [0.5, 1.0]), ((3, 3), [0, 1, 2])],
)
def test_channels_are_repeated_or_averaged(channels, wanted):
    shortcut = Shortcut(nn.Conv2d(*channels, 1), None)
    stream = torch.arange(channels[0]).view(1, -1, 1, 1).expand(1, -1, 4, 4).float()
    assert shortcut(stream)[0, :, 0, 0].tolist() == wanted
    assert not list(shortcut.parameters()) and not list(shortcut.buffers())


@pytest.mark.parametrize(
    'conv',
    [
        nn.Conv2d(1, 1, 3, padding=1),
        nn.Conv2d(1, 1, 3, stride=2, padding=1),
        nn.Conv2d(1, 1, 3),
        nn.Conv2d(1, 1, 4, padding=1),
        nn.Conv2d(1, 1, 5, stride=3, padding=1),
        nn.Conv2d(1, 1, 3, padding=2, dilation=3),
    ],
)
def test_resolution_follows_the_convolution(conv):
    for side in range(7, 13):
        x = torch.randn(1, 1, side, side + 1)
        assert Shortcut(conv, None)(x).shape == conv(x).shape


def test_convolution_that_enlarges_is_refused():
    with pytest.raises(ValueError, match=r'shortcut: a convolution of kernel \(3, 3\) and padding'):
        Shortcut(nn.Conv2d(2, 2, 3, padding=2), None)
