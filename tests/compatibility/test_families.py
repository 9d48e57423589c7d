"""MMDetection's detector families with a spiking backbone; all but a few of them are slow."""

import importlib.metadata
import re
from collections import Counter

import pytest
from mmengine.config import Config

from compatibility import CONFIGS, FAMILIES, Family, try_family

FAMILY = {family.name: family for family in FAMILIES}
TRIED = [family for family in FAMILIES if family.config]


def families(chosen: list[Family]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize('family', chosen, ids=lambda family: family.name)


@pytest.mark.parametrize(
    'family',
    [pytest.param(f, marks=[] if f.fast else pytest.mark.slow, id=f.name) for f in TRIED],
)
def test_family(family: Family) -> None:
    if family.package:
        try:
            importlib.metadata.version(family.package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f'{family.name} needs {family.package}')
    reason = try_family(family).reason
    assert family.fails in reason if family.fails else not reason


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
