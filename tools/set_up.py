"""Make the virtual environment of the suite: ``python3 tools/set_up.py [--folder .venv] [--dev]``.

Uses the standard library only, since it runs before anything is installed. What works already is
kept: a torch of your own and a compiled mmcv, if the Python that runs this has them (the new
environment then sees its packages behind its own).
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 10), (3, 13))
# Imports that must work for a torch to count as working; a torchvision of another build fails here.
TORCH_PROBE = 'import torch, torchvision.ops; print(torch.__version__, torchvision.__version__)'
MMCV_PROBE = 'import mmcv._ext; print(mmcv.__version__)'


def probe(python: str | Path, code: str) -> str | None:
    """Run ``code`` under another interpreter and return what it prints, None if it fails."""
    result = subprocess.run([str(python), '-c', code], capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else None


def wanted(dev: bool) -> list[Path]:
    """Return the requirements files to install."""
    names = ['requirements.txt'] + (['requirements-dev.txt'] if dev else [])
    return [ROOT / name for name in names]


def fingerprint(files: list[Path]) -> str:
    """Return a digest of all that decides what is installed."""
    digest = hashlib.sha256()
    for file in [*files, ROOT / 'setup.cfg']:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def requirement_lines(files: list[Path], kept: set[str]) -> list[str]:
    """Return the pins of the files without the packages that are kept as they are."""
    lines = []
    for file in files:
        for line in file.read_text().splitlines():
            line = line.split('#')[0].strip()
            if line and line.split('=')[0].split('<')[0].strip() not in kept:
                lines.append(line)
    return lines


def run(*command: str | Path) -> None:
    """Run a command; stop with its exit code if it fails."""
    result = subprocess.run([str(part) for part in command])
    if result.returncode:
        sys.exit(
            f'error: `{" ".join(map(str, command))}` failed, see above; run the same again to go on'
        )


def check_kept(name: str, found: str, low: tuple[int, int], high: tuple[int, int] | None) -> None:
    """Stop if a package that would be kept is of a version that does not work."""
    version = tuple(int(part) for part in re.findall(r'\d+', found)[:2])
    if version < low or (high is not None and version >= high):
        wanted = f'{low[0]}.{low[1]} or newer' + (f', below {high[0]}.{high[1]}' if high else '')
        sys.exit(
            f'error: {name} {found} of {sys.executable} does not work here: needs {wanted}. Change it, '
            'or name a Python without it, for example `make demo PYTHON=/usr/bin/python3`'
        )


def create(folder: Path, python: Path, share: bool) -> None:
    """Create the environment; with ``share``, let it see the packages of the running Python."""
    print(f'[set-up] creating {folder} with Python {sys.version.split()[0]}', flush=True)
    try:
        venv.EnvBuilder(with_pip=True).create(folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, subprocess.CalledProcessError):
            raise
        sys.exit(
            f'error: {sys.executable} cannot make a virtual environment with pip; on Debian and Ubuntu '
            '`apt install python3-venv`'
        )
    if share:
        # Not system_site_packages: from within a virtual environment that is its base, not itself.
        shared = [path for path in sys.path if path.endswith(('site-packages', 'dist-packages'))]
        purelib = probe(python, "import sysconfig; print(sysconfig.get_path('purelib'))")
        Path(purelib, 'own_packages.pth').write_text('\n'.join(shared) + '\n')


def set_up(folder: Path, dev: bool) -> None:
    """Create the environment, or complete it; do nothing if it is complete."""
    files = wanted(dev)
    mark = fingerprint(files)
    stamp = folder / f'.hoyer_det{"-dev" if dev else ""}'
    complete = [stamp] if dev else [stamp, folder / '.hoyer_det-dev']
    marks = {mark, fingerprint(wanted(dev=True))}
    if any(file.is_file() and file.read_text() in marks for file in complete):
        return
    python = folder / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
    if not python.exists():
        create(folder, python, share=probe(sys.executable, TORCH_PROBE) is not None)
    kept = set()
    found = probe(python, TORCH_PROBE)
    if found is not None:
        check_kept('torch', found.split()[0], (2, 6), None)
        kept |= {'torch', 'torchvision'}
        print(f'[set-up] keeping torch and torchvision {found}', flush=True)
    found = probe(python, MMCV_PROBE)
    if found is not None:
        check_kept('mmcv', found, (2, 0), (2, 2))
        kept |= {'mmcv-lite'}
        print(f'[set-up] keeping the compiled mmcv {found}', flush=True)
    pins = requirement_lines(files, kept)
    print(f'[set-up] installing {", ".join(pins)}', flush=True)
    if 'torch' not in kept:
        print('[set-up] torch is large: about 2 minutes and 5 GB', flush=True)
    pip = [python, '-m', 'pip', '--disable-pip-version-check']
    run(*pip, 'install', *pins)
    # The pins are all that setup.cfg asks for; nothing here may touch a torch that is kept.
    run(*pip, 'install', '--quiet', '--no-deps', '--no-build-isolation', '--editable', ROOT)
    if probe(python, 'import cv2') is None:
        print('[set-up] no libGL on this machine: OpenCV without windows instead', flush=True)
        run(*pip, 'uninstall', '--quiet', '--yes', 'opencv-python')
        opencv = next(pin for pin in pins if pin.startswith('opencv-python'))
        headless = opencv.replace('opencv-python', 'opencv-python-headless')
        run(*pip, 'install', '--quiet', '--no-deps', headless)
    if probe(python, 'import hoyer_det') is None:
        run(python, '-c', 'import hoyer_det')
    stamp.write_text(mark)
    print(f'[set-up] done; `. {folder}/bin/activate` to use it yourself', flush=True)


def main() -> None:
    """Read the flags and set up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--folder', type=Path, default=Path('.venv'), help='the environment')
    parser.add_argument('--dev', action='store_true', help='with pytest and ruff')
    args = parser.parse_args()
    low, high = SUPPORTED
    if not low <= sys.version_info[:2] < high:
        sys.exit(
            f'error: Python {sys.version.split()[0]} at {sys.executable}: needs Python 3.10, 3.11 or '
            '3.12; name one, for example `make demo PYTHON=python3.11`'
        )
    set_up(args.folder, args.dev)


if __name__ == '__main__':
    main()
