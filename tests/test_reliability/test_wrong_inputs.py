"""Wrong inputs to the command lines: each ends in one line that says where and what, and leaves nothing."""

from pathlib import Path

import pytest
from warm import Warm
from wrong_files import FILES
from wrong_flags import FLAGS
from wrong_inputs import GOOD, Case, run, write_sound_folder
from wrong_settings import SETTINGS

CASES = [*SETTINGS, *FLAGS, *FILES]


@pytest.fixture(scope='module')
def sound(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('sound')
    write_sound_folder(folder, warm)
    return folder


@pytest.mark.parametrize(
    'case',
    [pytest.param(c, id=c.name, marks=[pytest.mark.slow] * c.slow) for c in CASES],
)
def test_wrong_input(case: Case, sound: Path, tmp_path: Path, warm: Warm) -> None:
    outcome, ended = run(case, sound, tmp_path / 'run', warm)
    assert outcome == GOOD, ended


def test_cases_are_distinct() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 120
