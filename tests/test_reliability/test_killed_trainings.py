"""A training that is killed and resumed equals the one that never was, bit for bit."""

import subprocess
import sys
from collections.abc import Sequence

import pytest
from conftest import REPOSITORY


def kill(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, 'dev/kill_trainings.py', *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.mark.parametrize(
    'arguments',
    [
        ['--kills', '2', '--epochs', '2'],
        pytest.param(['--kills', '20'], marks=pytest.mark.slow),
        pytest.param(['--kills', '6', '--loop', 'iterations'], marks=pytest.mark.slow),
    ],
    ids=' '.join,
)
def test_killed_and_resumed(arguments: Sequence[str]) -> None:
    done = kill(*arguments)
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 0, done.stdout + done.stderr
    assert last.endswith('all bits are equal')
    assert not last.startswith('0 ') and '(0 in a validation)' not in last
