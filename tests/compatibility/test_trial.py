"""What a trial changes in a config, and what it notices."""

import dataclasses
import datetime
import re
import sys
from types import ModuleType

import pytest
import torch
from conftest import load_script
from hoyer_det.backbones import HoyerResNet
from hoyer_det.backbones.resnet import SpikingBasicBlock
from mmengine.config import ConfigDict

from compatibility import FAMILIES, Result, put_hoyer_resnet_in, try_family

FAMILY = {family.name: family for family in FAMILIES}


def test_backbone_keeps_its_shape_and_is_trained() -> None:
    backbone = dict(
        type='ResNet',
        depth=34,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        out_indices=(2, 3),
        style='caffe',
        frozen_stages=1,
        norm_eval=True,
        norm_cfg=dict(type='SyncBN', requires_grad=False),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet34'),
        zero_init_residual=False,
    )
    model = ConfigDict(type='Wrapper', detector=dict(type='RetinaNet', backbone=backbone))
    put_hoyer_resnet_in(model)
    assert model.detector.backbone == dict(
        type='HoyerResNet',
        depth=34,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        out_indices=(2, 3),
        style='caffe',
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=None,
    )


@pytest.mark.parametrize(
    'backbone, message',
    [
        (dict(type='ResNet', depth=50, dcn=dict(type='DCN')), r'blocks of its ResNet \(dcn\)'),
        (dict(type='ResNeXt', depth=50), 'no ResNet backbone'),
    ],
)
def test_what_cannot_be_replaced_is_refused(backbone: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        put_hoyer_resnet_in(ConfigDict(type='RetinaNet', backbone=backbone))


# What a trial must notice, on the family that takes the least time.
QUICK = FAMILY['centernet']


def test_trial_notices_a_backbone_without_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = SpikingBasicBlock.forward

    def cut(self: SpikingBasicBlock, x: torch.Tensor) -> torch.Tensor:
        return forward(self, x.detach())  # the stem and all blocks but the last learn nothing

    monkeypatch.setattr(SpikingBasicBlock, 'forward', cut)
    assert re.search(r'backbone\.stem.*: no gradient', try_family(QUICK).reason)


def test_trial_notices_gradients_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = HoyerResNet.forward

    def overflow(self: HoyerResNet, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(Overflow.apply(feature) for feature in forward(self, x))

    monkeypatch.setattr(HoyerResNet, 'forward', overflow)
    assert 'gradient is not finite' in try_family(QUICK).reason


class Overflow(torch.autograd.Function):
    """The identity, with a gradient of infinity."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
        return grad / 0


def test_error_becomes_the_reason_and_says_whose_it_is() -> None:
    broken = dataclasses.replace(QUICK, changes={'bbox_head.type': 'NoSuchHead'})
    reason = try_family(broken).reason
    assert reason.startswith("with MMDetection's own ResNet, too") and 'NoSuchHead' in reason


@pytest.fixture(scope='module')
def script() -> ModuleType:
    return load_script('dev/compatibility.py')


def test_page_has_a_row_for_each_result(script: ModuleType) -> None:
    results = [
        Result(FAMILY['atss'], unused_maps=[0, 1]),
        Result(FAMILY['paa'], reason='either | or'),
        Result(FAMILY['hrnet'], reason=FAMILY['hrnet'].reason),
    ]
    text = script.page(results, datetime.date(2026, 1, 2))
    assert '2026-01-02' in text and '**1 of the 2 families' in text and ' 1 more have none' in text
    names = ('| `atss`', '| `paa`', '| `hrnet`')
    rows = [line for line in text.splitlines() if line.startswith(names)]
    assert [row.split(' | ')[3] for row in rows] == ['yes', 'no', 'no']
    assert 'maps 0, 1 are not used' in rows[0]
    assert 'either / or; needs scikit-learn' in rows[1]


def test_script_refuses_an_unknown_family(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, 'argv', ['compatibility.py', 'retinanets'])
    with pytest.raises(SystemExit, match='2'):
        script.main()
    assert 'no such family: retinanets; known are' in capsys.readouterr().err.splitlines()[-1]
