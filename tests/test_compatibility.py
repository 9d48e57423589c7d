"""Families of MMDetection's detectors with a spiking backbone, and the page about them."""

import dataclasses
import importlib.util
import re
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from conftest import REPOSITORY
from hoyer_det.backbones import HoyerResNet
from hoyer_det.backbones.resnet import SpikingBasicBlock
from hoyer_det.compatibility import (
    CONFIGS,
    FAMILIES,
    Family,
    put_hoyer_resnet_in,
    try_family,
)
from mmengine.config import Config, ConfigDict

FAMILY = {family.name: family for family in FAMILIES}
TRIED = [family for family in FAMILIES if not family.same_as]
FAST = [family for family in TRIED if family.fast]
SLOW = [family for family in TRIED if family.config and not family.fast]


def rows() -> dict[str, list[str]]:
    """The table of the page: kind, config, works and notes of each family."""
    text = (REPOSITORY / 'docs' / 'compatibility.md').read_text()
    table = text.split('| works | notes |')[1].split('\n\n')[0]
    cells = [
        [cell.strip(' `') for cell in line.split('|')[1:-1]] for line in table.splitlines()[2:]
    ]
    return {row[0]: row[1:] for row in cells}


def families(names: list[Family]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize('family', names, ids=lambda family: family.name)


@families(FAST)
def test_family_works(family: Family) -> None:
    assert try_family(family).reason == ''


@pytest.mark.slow
@families(SLOW)
def test_family_does_what_the_page_says(family: Family) -> None:
    if family.package and importlib.util.find_spec(family.package) is None:
        pytest.skip(f'{family.name} needs {family.package}')
    result = try_family(family)
    assert ('yes' if result.works else 'no') == rows()[family.name][2], result.reason


@pytest.mark.slow
@families([family for family in FAMILIES if 'its configs have' in family.reason])
def test_families_said_to_have_no_resnet_have_none(family: Family) -> None:
    for path in (CONFIGS / family.name).glob('*.py'):
        assert not re.search(r"type='ResNet'", path.read_text()), path


@pytest.mark.slow
@families([family for family in FAMILIES if family.same_as])
def test_recipes_hold_the_detector_of_their_family(family: Family) -> None:
    other = FAMILY[family.same_as]
    expected = Config.fromfile(CONFIGS / other.name / other.config).model.type
    folder = CONFIGS / family.name
    paths = sorted(folder.glob('*r50*.py')) or sorted(folder.glob('*.py'))
    models = (Config.fromfile(path).model for path in paths)  # some of `sort` do not load
    assert any(model.get('detector', model).type == expected for model in models)


def test_every_folder_of_mmdetection_is_listed_once() -> None:
    folders = {path.name for path in CONFIGS.iterdir() if list(path.glob('*.py'))}
    assert Counter(family.name for family in FAMILIES) == Counter(folders - {'_base_', 'common'})


def test_page_and_list_agree() -> None:
    table = rows()
    assert list(table) == [family.name for family in TRIED]
    for family in TRIED:
        kind, config, works, notes = table[family.name]
        assert (kind, config) == (family.kind, family.config)
        assert works == 'yes' or notes, family.name
        assert not (works == 'yes' and family.reason), family.name
    page = (REPOSITORY / 'docs' / 'compatibility.md').read_text()
    for family in FAMILIES:
        assert not family.same_as or f'| `{family.name}` | `{family.same_as}` |' in page


def test_at_least_thirty_families_of_all_kinds_work() -> None:
    working = [row[0] for row in rows().values() if row[2] == 'yes']
    assert len(working) >= 30
    for kind in ('anchor-based', 'anchor-free', 'two stages', 'transformer'):
        assert sum(kind in other for other in working) >= 3, kind


def test_default_run_tries_families_of_all_kinds() -> None:
    assert len(FAST) >= 12
    kinds = ' '.join(family.kind for family in FAST)
    for kind in ('anchor-based', 'anchor-free', 'two stages', 'transformer'):
        assert kind in kinds


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


def test_tool_refuses_an_unknown_family(run_tool: Callable) -> None:
    result = run_tool('compatibility', 'retinanets')
    assert result.returncode == 1
    assert re.fullmatch(r'error: retinanets: no such family; known are .*\n', result.stderr)
