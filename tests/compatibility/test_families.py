"""MMDetection's detector families with a spiking backbone; all but a few of them are slow."""

import importlib.metadata
import re
from collections import Counter

import pytest
from hoyer_det.spiking import spiking_layers
from mmdet.registry import MODELS
from mmengine.config import Config

from compatibility import CONFIGS, FAMILIES, Family, shipped_model, try_family

FAMILY = {family.name: family for family in FAMILIES}
TRIED = [family for family in FAMILIES if family.config]


def families(chosen: list[Family]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize('family', chosen, ids=lambda family: family.name)


def installed(package: str) -> bool:
    """Whether a distribution is installed, if one is named at all."""
    try:
        return not package or bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.parametrize(
    'family',
    [pytest.param(f, marks=[] if f.fast else pytest.mark.slow, id=f.name) for f in TRIED],
)
def test_family(family: Family) -> None:
    if not installed(family.package):
        pytest.skip(f'{family.name} needs {family.package}')
    reason = try_family(family).reason
    assert family.fails in reason if family.fails else not reason


@pytest.mark.slow
@families([family for family in TRIED if not family.fails])
def test_spiking_detector_converts_family(family: Family) -> None:
    if not installed(family.package):
        pytest.skip(f'{family.name} needs {family.package}')
    model = MODELS.build(dict(type='SpikingDetector', detector=shipped_model(family)))
    assert len(spiking_layers(model)) > 15


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
