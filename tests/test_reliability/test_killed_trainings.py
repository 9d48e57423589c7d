"""A training that is killed and resumed equals the one that never was, bit for bit."""

from collections.abc import Sequence

import pytest
from conftest import REPOSITORY
from warm import Warm


@pytest.mark.parametrize(
    'arguments',
    [
        ['--kills', '2', '--epochs', '2'],
        pytest.param(['--kills', '20'], marks=pytest.mark.slow),
        pytest.param(['--kills', '6', '--loop', 'iterations'], marks=pytest.mark.slow),
    ],
    ids=' '.join,
)
def test_killed_and_resumed(arguments: Sequence[str], warm: Warm) -> None:
    command = ['run', 'dev/kill_trainings.py', *arguments]
    (ended,) = warm.run(command, REPOSITORY, timeout=1800)
    assert ended.code == 0, ended
    last = ended.out.splitlines()[-1]
    assert last.endswith('all bits are equal')
    assert not last.startswith('0 ') and '(0 in a validation)' not in last
