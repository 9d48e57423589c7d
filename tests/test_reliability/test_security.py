"""What is read as data cannot run as code, and what a report shows cannot become a part of its page."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

SOURCES = [
    path
    for folder in ('projects', 'tools', 'dev', 'benchmarks')
    for path in (REPOSITORY / folder).rglob('*.py')
]


def calls(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield what a file calls or hands to ``partial``, with the names of the arguments."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            given = {keyword.arg for keyword in node.keywords}
            yield ast.unparse(node.func), given
            if node.args and ast.unparse(node.func).endswith('partial'):
                yield ast.unparse(node.args[0]), given


@pytest.mark.parametrize('name', ['torch.load', 'load_url'])
def test_checkpoints_are_read_as_data(name: str) -> None:
    found = [(path, given) for path in SOURCES for called, given in calls(path) if called == name]
    assert found and all('weights_only' in given for _, given in found)


def test_nothing_else_unpickles_or_runs_text() -> None:
    refused = {'pickle.load', 'pickle.loads', 'joblib.load', 'eval', 'exec', 'os.system'}
    assert not [
        (path, called) for path in SOURCES for called, _ in calls(path) if called in refused
    ]
