"""Folded norms: the same spikes, on every structure, and mmcv's fusion refused where it would lie."""

import mmcv.cnn
import pytest
import torch
from hoyer_det.backbones import HoyerResNet, HoyerVGG
from hoyer_det.deploy import SignFlip, fold_norms
from hoyer_det.necks import HoyerFPN, HoyerSSDNeck, HoyerYOLOV3Neck
from hoyer_det.pretrain import HoyerResNetCIFAR
from hoyer_det.spiking import HoyerSpike
from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import RetinaSepBNHead
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SPIKE = dict(type='HoyerSpike', extremum='channel')
RELU = dict(type='ReLU')


class Chain(BaseModule):
    """A backbone with a neck of this package behind it."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        for part in self.parts:
            x = part(x)
        return x


def vgg_and_ssd_neck(act: dict) -> nn.Module:
    backbone = HoyerVGG(11, 1 / 16, ssd_tail=True, act_cfg=act)
    return Chain(backbone, HoyerSSDNeck((32, 64), (32, 64, 32), (2,), (1,), act_cfg=act))


def vgg_and_ssd_neck_with_shortcuts(act: dict) -> nn.Module:
    backbone = HoyerVGG(11, 1 / 16, ssd_tail=True, shortcut=True, act_cfg=act)
    neck = HoyerSSDNeck((32, 64), (32, 64, 32), (2,), (1,), shortcut=True, act_cfg=act)
    return Chain(backbone, neck)


def resnet_and_fpn(act: dict) -> nn.Module:
    backbone = HoyerResNet(18, base_channels=4, deep_stem=True, act_cfg=act)
    return Chain(backbone, HoyerFPN([4, 8, 16, 32], 8, 5, add_extra_convs='on_output', act_cfg=act))


def vgg_and_yolo_neck(act: dict) -> nn.Module:
    backbone = HoyerVGG(11, 1 / 16, act_cfg=act, out_indices=(2, 3, 4))
    neck = HoyerYOLOV3Neck(3, [32, 32, 16], [16, 8, 4], act_cfg=act)
    return Chain(backbone, neck)


STRUCTURES = {
    'vgg and ssd neck': vgg_and_ssd_neck,
    'vgg and ssd neck with shortcuts': vgg_and_ssd_neck_with_shortcuts,
    'resnet18 and fpn': resnet_and_fpn,
    'vgg and yolo neck': vgg_and_yolo_neck,
    'resnet50': lambda act: HoyerResNet(50, base_channels=4, act_cfg=act),
    'resnet18 for CIFAR': lambda act: HoyerResNetCIFAR(18, base_channels=4, act_cfg=act),
}


def shaken(model: nn.Module) -> nn.Module:
    """The model in float64 with norms of both signs and statistics of their own, and with extrema."""
    draw = torch.Generator().manual_seed(0)
    model = model.double()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            deviation = (2 / module.weight[0].numel()) ** 0.5
            module.weight.data.normal_(0, deviation, generator=draw)
        elif isinstance(module, _BatchNorm):
            module.weight.data.normal_(0, 1, generator=draw)
            module.bias.data.uniform_(-0.3, 0.6, generator=draw)
            module.momentum = 1.0
    model.train()(images(seed=5))
    return model.eval()


def images(seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 64, 64, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize('act', [SPIKE, RELU], ids=['spikes', 'twin'])
@pytest.mark.parametrize('name', STRUCTURES)
def test_folded_network_computes_the_same(name, act):
    model = shaken(STRUCTURES[name](act))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_norms(model)
    with torch.no_grad():
        wanted, found = model(images()), folded(images())
    for a, b in zip(wanted, found, strict=True):
        assert a.abs().mean() > 0 and a.std() > 0  # not a dead network
        if act is SPIKE:
            assert torch.equal(
                a, b
            )  # a potential within rounding of its level is not met by chance
        else:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    norms = sum(isinstance(m, _BatchNorm) for m in model.modules())
    left = sum(isinstance(m, _BatchNorm) for m in folded.modules())
    expected = dict(resnet50=16 + 4 + 4, **{'resnet18 and fpn': 3, 'resnet18 for CIFAR': 3})
    assert left == expected.get(name, 0) and left < norms
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_spikes_of_every_layer_are_the_same_bit_for_bit():
    model = shaken(HoyerVGG(11, 1 / 8, act_cfg=SPIKE))

    def spikes(network: nn.Module) -> list[Tensor]:
        seen: list[Tensor] = []
        neurons = [m for m in network.modules() if isinstance(m, HoyerSpike)]
        handles = [m.register_forward_hook(lambda m, i, o: seen.append(o)) for m in neurons]
        with torch.no_grad():
            network(images())
        for handle in handles:
            handle.remove()
        return seen

    pairs = list(zip(spikes(model), spikes(fold_norms(model)), strict=True))
    assert len(pairs) == 8
    for wanted, found in pairs:
        assert 0.01 < wanted.mean() < 0.99
        assert torch.equal(wanted, found)


def test_only_channels_of_negative_scale_keep_a_sign_behind_the_pooling():
    model = shaken(HoyerVGG(11, 1 / 16, act_cfg=SPIKE))
    norm = model.stages[0][0].norm
    norm.weight.data.copy_(torch.tensor([1.0, -1.0, 2.0, 0.0]))
    assert fold_norms(model).stages[0][0].norm.sign.tolist() == [1, -1, 1, 1]
    norm.weight.data.abs_()
    folded = fold_norms(model)
    assert isinstance(folded.stages[0][0].norm, nn.Identity)
    assert not any(isinstance(m, SignFlip) for m in folded.stages[2][0].modules())


def test_convolution_shared_by_the_norms_of_several_levels():
    head = RetinaSepBNHead(3, 2, 4, stacked_convs=1, feat_channels=4, norm_cfg=dict(type='BN'))
    assert head.cls_convs[0][0].conv is head.cls_convs[1][0].conv
    levels = [torch.randn(1, 4, 8, 8).double(), torch.randn(1, 4, 4, 4).double()]
    head = head.double()
    for module in head.modules():
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.weight)
            module.momentum = 1.0
    head.train()(levels)
    head.eval()
    folded = fold_norms(head)
    with torch.no_grad():
        for wanted, found in zip(head(levels), folded(levels), strict=True):
            for a, b in zip(wanted, found, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match='cls_convs.0.0.conv: several norms share it'):
        mmcv.cnn.fuse_conv_bn(head)


# The second is what a module holds that imported the function before this package.
@pytest.mark.parametrize('fuse', [mmcv.cnn.fuse_conv_bn, mmcv.cnn.fuse_conv_bn.__wrapped__])
@pytest.mark.parametrize('act', [SPIKE, RELU], ids=['spikes', 'twin'])
def test_fusion_of_mmcv_across_a_pooling_is_refused(fuse, act):
    model = HoyerVGG(11, 1 / 16, act_cfg=act)
    with pytest.raises(ValueError, match=r'0\.0\.conv: a max pooling stands .*fold_norms'):
        fuse(model)
    assert sum(isinstance(m, _BatchNorm) for m in model.modules()) == 8  # nothing was fused


def test_fusion_of_mmcv_is_left_alone_where_it_is_right():
    neck = HoyerSSDNeck((4,), (4, 8), (2,), (1,), act_cfg=SPIKE)
    assert not any(isinstance(m, _BatchNorm) for m in mmcv.cnn.fuse_conv_bn(neck).modules())


@pytest.mark.parametrize(
    'block',
    [
        ConvModule(4, 4, 3, norm_cfg=dict(type='BN'), order=('norm', 'conv', 'act')),
        ConvModule(4, 4, 3, norm_cfg=dict(type='GN', num_groups=2)),
        ConvModule(4, 4, 3, norm_cfg=dict(type='BN'), conv_cfg=dict(type='ConvWS')),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
    ],
    ids=['norm first', 'group norm', 'weight standardisation', 'activation between'],
)
def test_what_cannot_be_folded_is_left_alone(block):
    names = [type(m) for m in block.modules()]
    assert [type(m) for m in fold_norms(block).modules()] == names
