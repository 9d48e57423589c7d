"""The console script: its list of commands, and that it runs the same code as the files of tools/."""

import subprocess
import sys

import hoyer_det_cli
import pytest
from conftest import REPOSITORY, load_script

WATCH = """
import sys
sys.argv[1:] = {arguments}
from hoyer_det_cli import main
try:
    main()
finally:
    print('imported:', sorted({{'torch', 'mmengine', 'hoyer_det'}} & set(sys.modules)))
"""


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-c', WATCH.format(arguments=arguments)],
        env={'PYTHONPATH': str(REPOSITORY / 'projects')},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize('arguments', [(), ('--help',)])
def test_help_lists_the_commands_and_imports_nothing(arguments):
    result = script(*arguments)
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    for name in ('train', 'test', 'analyze', 'convert', 'download-data'):
        assert len([line for line in lines if line.split()[:1] == [name] and line[-1] != name]) == 1
    assert lines[-1] == 'imported: []'


def test_misspelt_command():
    result = script('trian')
    assert result.returncode == 1 and 'imported: []' in result.stdout
    assert result.stderr == "error: hoyer-det trian: no such command; did you mean 'train'?\n"


@pytest.mark.parametrize('name', sorted(hoyer_det_cli.COMMANDS))
def test_every_command_knows_its_name(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['/usr/bin/hoyer-det', name, '--help'])
    with pytest.raises(SystemExit) as stop:
        hoyer_det_cli.main()
    assert stop.value.code == 0
    assert f'usage: hoyer-det {name} ' in capsys.readouterr().out


@pytest.mark.parametrize('file', sorted((REPOSITORY / 'tools').glob('*.py')), ids=lambda p: p.stem)
def test_tools_are_commands(file):
    if file.stem in ('demo', 'set_up'):
        pytest.skip('runs other programs')
    name = 'convert' if file.stem == 'convert_checkpoint' else file.stem.replace('_', '-')
    assert name in hoyer_det_cli.COMMANDS
    main = load_script(f'tools/{file.name}').main
    assert main.__module__ == f'hoyer_det.commands.{name.replace("-", "_")}'
