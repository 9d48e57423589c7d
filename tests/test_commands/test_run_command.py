"""``hoyer-det run``: which script is found, and that it runs as under Python itself."""

import sys
from pathlib import Path

import pytest
from hoyer_det.commands.run import find_tool, main


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, 'argv', ['hoyer-det run', *arguments])
    main()


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    folder = tmp_path / 'tools'
    for name in ('test.py', 'analysis/browse_dataset.py', 'analysis/mot/browse.py', 'browse.py'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name in ('a/twice.py', 'b/twice.py'):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    'name, path',
    [
        ('test', 'test.py'),
        ('browse_dataset.py', 'analysis/browse_dataset.py'),
        ('analysis/browse_dataset', 'analysis/browse_dataset.py'),
        ('browse', 'browse.py'),  # in fewer folders than the other
        ('mot/browse', 'analysis/mot/browse.py'),
        ('b/twice.py', 'b/twice.py'),
    ],
)
def test_tools_are_found_by_the_end_of_their_path(tools: Path, name: str, path: str) -> None:
    assert find_tool(name, tools) == tools / path


def test_a_file_comes_first(tools: Path, tmp_path: Path) -> None:
    (tmp_path / 'test').touch()
    assert find_tool('test', tools) == Path('test')


def test_what_is_no_tool(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match='twice: several tools .* a/twice.py, b/twice.py'):
        find_tool('twice', tools)
    with pytest.raises(FileNotFoundError, match='browse_datset: neither .* browse_dataset'):
        find_tool('browse_datset', tools)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, 'lost.py', '--help')
    assert str(stop.value.code).startswith('error: lost.py: neither a file nor a tool')


def test_it_runs_as_under_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'scripts'
    folder.mkdir()
    (folder / 'beside_it.py').write_text('WORD = "imported"')
    (folder / 'own.py').write_text(
        'import sys\n'
        'from beside_it import WORD\n'
        'if __name__ == "__main__":\n'
        '    import mmcv.ops\n'
        '    print(WORD, sys.argv, __file__)\n'
        '    sys.exit(7)\n'
    )
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, 'scripts/own.py', 'x', '--help', '--', '-y')
    assert stop.value.code == 7
    said = capsys.readouterr().out.strip()
    assert said == "imported ['scripts/own.py', 'x', '--help', '--', '-y'] scripts/own.py"


def test_errors_pass_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'own.py').write_text('raise KeyError("its own")')
    with pytest.raises(KeyError, match='its own'):
        run(monkeypatch, 'own.py')
