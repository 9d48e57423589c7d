"""Does the trainings of a set one after another; skips what is done, resumes what is not."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ..engine.storage import replacing
from .sets import ExperimentSet, Run

RESULT = 'result.json'


def work_dir(out: Path, run: Run, seed: int) -> Path:
    """Return the work folder of a run."""
    return out / f'{run.name}_seed{seed}'


def run_all(experiments: ExperimentSet, out: Path, data_root: str, seeds: int) -> None:
    """Do every run of a set that has no result yet.

    Args:
        experiments: The set.
        out: Folder of the work folders.
        data_root: Folder of the data set.
        seeds: Number of seeds, from 0 on.

    Raises:
        ChildProcessError: If a training fails.
        ValueError: If it was not evaluated.
    """
    for seed in range(seeds):
        for run in experiments.runs:
            folder = work_dir(out, run, seed)
            if (folder / RESULT).is_file():
                print(f'{folder}: done')
                continue
            line = command(run, folder, seed, data_root)
            print(shlex.join(line), flush=True)
            start = time.time()
            code = subprocess.run([sys.executable, '-m', 'hoyer_det_cli', *line[1:]]).returncode
            if code:
                raise ChildProcessError(f'{folder}: the training ended with exit code {code}')
            _write_result(folder, experiments.metric, line, time.time() - start)


def command(run: Run, folder: Path, seed: int, data_root: str) -> list[str]:
    """Return the command line of a run in its work folder."""
    options = {'data_root': data_root, 'randomness.seed': seed, **run.options}
    return [
        'hoyer-det',
        'train',
        run.config,
        *run.flags,
        '--work-dir',
        str(folder),
        '--resume',
        *option_flags(options),
    ]


def option_flags(options: Mapping[str, object]) -> list[str]:
    """Return settings as flags of a command."""
    return ['--cfg-options', *(f'{key}={value}' for key, value in options.items())]


def _write_result(folder: Path, metric: str, line: list[str], seconds: float) -> None:
    curve = read_curve(folder, metric)
    if not curve:
        raise ValueError(f'{folder}: no validation wrote {metric}')
    result = dict(command=shlex.join(line), seconds=round(seconds), curve=curve)
    with replacing(folder / RESULT) as part:
        part.write_text(json.dumps(result))


def read_curve(folder: Path, metric: str) -> list[tuple[int, float]]:
    """Return the pairs (epoch, figure) that the validations of a run logged, resumed ones too.

    Raises:
        ValueError: If a validation stands before any training step.
    """
    lines = [
        json.loads(line)
        for file in sorted(folder.glob('*/vis_data/scalars.json'))
        for line in file.read_text().splitlines()
    ]
    trained = {line['step']: line['epoch'] for line in lines if 'epoch' in line}
    found: dict[int, float] = {}
    for line in lines:
        if metric in line:  # logged after the last iteration of its epoch
            before = [epoch for step, epoch in trained.items() if step <= line['step']]
            if not before:
                raise ValueError(
                    f'{folder}: a validation was logged before any training step; remove the folder'
                )
            found[max(before)] = float(line[metric])
    return sorted(found.items())


def read_final(folder: Path, metric: str) -> dict[str, float]:
    """Return all figures of the last validation of a run that logged ``metric``; no name without ``/``."""
    final: dict[str, float] = {}
    for file in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in map(json.loads, file.read_text().splitlines()):
            if metric in line:
                final = {key: value for key, value in line.items() if '/' in key}
    return final
