"""The set-up script without an installation, and the commands that the Makefile runs."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import pytest
from conftest import REPOSITORY, load_script


@pytest.fixture
def set_up() -> ModuleType:
    return load_script('tools/set_up.py')


class Machine:
    """Stands in for pip and the interpreters: what works is in ``working``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
        self.module, self.working, self.commands, self.created = module, {}, [], []
        monkeypatch.setattr(module, 'probe', lambda python, code: self.working.get(code))
        monkeypatch.setattr(module, 'run', lambda *command: self.commands.append(command))
        machine = self

        class Builder:
            def __init__(self, **kwargs: bool) -> None:
                self.kwargs = kwargs

            def create(self, folder: Path) -> None:
                (folder / 'bin').mkdir(parents=True)
                (folder / 'bin' / 'python').touch()
                machine.created.append(self.kwargs)

        monkeypatch.setattr(module.venv, 'EnvBuilder', Builder)
        self.working |= {'import hoyer_det': '', 'import cv2': ''}
        self.shared: list[bool] = []
        create = module.create

        def remember(folder: Path, python: Path, share: bool) -> None:
            self.shared.append(share)
            create(folder, python, share=False)

        monkeypatch.setattr(module, 'create', remember)

    @property
    def installed(self) -> list[str]:
        return [str(part) for command in self.commands for part in command if '==' in str(part)]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, set_up: ModuleType) -> Machine:
    return Machine(monkeypatch, set_up)


def names(lines: list[str]) -> set[str]:
    return {line.split('=')[0].split('<')[0].strip() for line in lines}


def test_requirement_lines_leave_out_what_is_kept(tmp_path: Path, set_up: ModuleType) -> None:
    file = tmp_path / 'requirements.txt'
    file.write_text('# head\n\ntorch==2.11.0  # large\ntorchvision==0.26.0\nsetuptools<81\n')
    assert set_up.requirement_lines([file], set()) == [
        'torch==2.11.0',
        'torchvision==0.26.0',
        'setuptools<81',
    ]
    assert set_up.requirement_lines([file], {'torch'}) == ['torchvision==0.26.0', 'setuptools<81']
    assert set_up.requirement_lines([file], {'torch', 'torchvision', 'setuptools'}) == []


def test_requirement_files_pin_every_package(set_up: ModuleType) -> None:
    plain = set_up.requirement_lines(set_up.wanted(dev=False), set())
    dev = set_up.requirement_lines(set_up.wanted(dev=True), set())
    assert {'torch', 'torchvision', 'mmcv-lite', 'mmdet', 'mmengine'} <= names(plain)
    assert {'pytest', 'ruff'} <= names(dev) - names(plain)
    assert set(plain) < set(dev)


def test_fingerprint_follows_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_up: ModuleType
) -> None:
    monkeypatch.setattr(set_up, 'ROOT', tmp_path)
    for name in ('setup.cfg', 'requirements.txt', 'requirements-dev.txt'):
        (tmp_path / name).write_text(name)
    first = set_up.fingerprint(set_up.wanted(dev=False))
    assert set_up.fingerprint(set_up.wanted(dev=False)) == first
    assert set_up.fingerprint(set_up.wanted(dev=True)) != first
    for name in ('setup.cfg', 'requirements.txt'):
        (tmp_path / name).write_text('changed')
        second = set_up.fingerprint(set_up.wanted(dev=False))
        assert second != first
        first = second


def test_set_up_installs_once(tmp_path: Path, set_up: ModuleType, machine: Machine) -> None:
    folder = tmp_path / 'env'
    set_up.set_up(folder, dev=False)
    assert machine.created == [dict(with_pip=True)] and machine.shared == [False]
    assert {'torch', 'mmcv-lite', 'mmdet'} <= names(machine.installed)
    assert machine.commands[-1][-2:] == ('--editable', REPOSITORY)
    machine.commands.clear()
    set_up.set_up(folder, dev=False)
    assert not machine.commands
    # What the tests need on top is another matter, and is also done once.
    set_up.set_up(folder, dev=True)
    assert 'pytest' in names(machine.installed)
    machine.commands.clear()
    set_up.set_up(folder, dev=True)
    set_up.set_up(folder, dev=False)
    assert not machine.commands
    assert len(machine.created) == 1


def test_set_up_goes_on_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_up: ModuleType, machine: Machine
) -> None:
    def fail(*command: object) -> None:
        sys.exit('error: no network')

    with monkeypatch.context() as patch:
        patch.setattr(set_up, 'run', fail)
        with pytest.raises(SystemExit):
            set_up.set_up(tmp_path / 'env', dev=False)
    set_up.set_up(tmp_path / 'env', dev=False)
    assert machine.installed


def test_set_up_keeps_a_working_torch_and_a_compiled_mmcv(
    tmp_path: Path, set_up: ModuleType, machine: Machine
) -> None:
    machine.working |= {set_up.TORCH_PROBE: '2.9.1 0.24.1', set_up.MMCV_PROBE: '2.1.0'}
    set_up.set_up(tmp_path / 'env', dev=False)
    assert machine.created == [dict(with_pip=True)] and machine.shared == [True]
    assert '--no-deps' in machine.commands[-1]  # else setup.cfg could ask for another torch
    assert not {'torch', 'torchvision', 'mmcv-lite'} & names(machine.installed)
    assert {'mmdet', 'mmengine'} <= names(machine.installed)


@pytest.mark.parametrize(
    ('probe', 'found'), [('TORCH_PROBE', '2.5.1 0.20.1'), ('MMCV_PROBE', '1.7.2')]
)
def test_what_works_but_is_too_old_is_named(
    probe: str, found: str, tmp_path: Path, set_up: ModuleType, machine: Machine
) -> None:
    machine.working[getattr(set_up, probe)] = found
    with pytest.raises(SystemExit, match=f'error: .*{found.split()[0]}.* needs 2') as exit_info:
        set_up.set_up(tmp_path / 'env', dev=False)
    assert '\n' not in exit_info.value.code and not machine.commands


def test_tests_environment_serves_the_demo_too(
    tmp_path: Path, set_up: ModuleType, machine: Machine
) -> None:
    set_up.set_up(tmp_path / 'env', dev=True)
    machine.commands.clear()
    set_up.set_up(tmp_path / 'env', dev=False)
    assert not machine.commands


def test_opencv_without_windows_where_libgl_is_missing(
    tmp_path: Path, set_up: ModuleType, machine: Machine
) -> None:
    del machine.working['import cv2']
    set_up.set_up(tmp_path / 'env', dev=False)
    assert any(str(part).startswith('opencv-python-headless==') for part in machine.commands[-1])


def test_packages_of_a_surrounding_environment_are_seen(tmp_path: Path) -> None:
    outer = tmp_path / 'outer'
    venv.EnvBuilder(with_pip=False).create(outer)
    (next(outer.glob('lib/python*/site-packages')) / 'own_torch.py').write_text('here = True')
    script = REPOSITORY / 'tools' / 'set_up.py'
    inner = tmp_path / 'inner'
    python = inner / 'bin' / 'python'
    code = (
        f'import sys, pathlib; sys.path.insert(0, {str(script.parent)!r}); import set_up; '
        f'set_up.create(pathlib.Path({str(inner)!r}), pathlib.Path({str(python)!r}), share=True)'
    )
    subprocess.run([outer / 'bin' / 'python', '-c', code], check=True)
    assert subprocess.run([python, '-c', 'import own_torch, pip']).returncode == 0


def test_a_failed_creation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_up: ModuleType
) -> None:
    class Broken:
        def __init__(self, **kwargs: bool) -> None:
            pass

        def create(self, folder: Path) -> None:
            (folder / 'bin').mkdir(parents=True)
            raise subprocess.CalledProcessError(1, 'ensurepip')

    monkeypatch.setattr(set_up.venv, 'EnvBuilder', Broken)
    with pytest.raises(SystemExit, match='error: .*python3-venv'):
        set_up.create(tmp_path / 'env', tmp_path / 'env/bin/python', share=False)
    assert not (tmp_path / 'env').exists()


@pytest.mark.parametrize('version', [(3, 9, 18), (3, 13, 0)])
def test_unsupported_python_is_refused(
    version: tuple[int, int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    set_up: ModuleType,
    machine: Machine,
) -> None:
    folder = tmp_path / 'env'
    text = '.'.join(map(str, version))
    fake = ModuleType('sys')
    fake.version_info, fake.version, fake.executable, fake.exit = version, text, 'python', sys.exit
    monkeypatch.setattr(set_up, 'sys', fake)
    monkeypatch.setattr(sys, 'argv', ['set_up.py', '--folder', str(folder)])
    with pytest.raises(SystemExit) as exit_info:
        set_up.main()
    message = exit_info.value.code
    assert message.startswith(f'error: Python {text}') and '3.10, 3.11 or 3.12' in message
    assert '\n' not in message
    assert not folder.exists() and not machine.commands


def test_probe_tells_working_code_from_failing(set_up: ModuleType) -> None:
    assert set_up.probe(sys.executable, 'print("here")') == 'here'
    assert set_up.probe(sys.executable, 'import no_such_module') is None


def test_a_failing_command_ends_in_one_line(set_up: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r'^error: .*failed'):
        set_up.run(sys.executable, '-c', 'raise SystemExit(3)')


@pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')
@pytest.mark.parametrize(
    'target, commands',
    [
        ('demo', ['tools/set_up.py --folder .venv', '.venv/bin/python tools/demo.py']),
        (
            'test',
            [
                'tools/set_up.py --folder .venv --dev',
                '.venv/bin/python -m pytest -n 2 --dist worksteal',
            ],
        ),
    ],
)
def test_make_runs_the_commands_of_the_readme(target: str, commands: list[str]) -> None:
    # A make that runs these tests hands its own variables down, such as VENV.
    env = {key: os.environ[key] for key in ('PATH', 'HOME') if key in os.environ}
    result = subprocess.run(
        ['make', '-n', target, 'PYTHON=python3'],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    found = [next(i for i, line in enumerate(lines) if line.endswith(c)) for c in commands]
    assert found == sorted(found)
