"""Does the trainings of a set one after another; skips what is done, resumes what is not."""

import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engine.storage import replacing
from .calling import run_command
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
            code = run_command(line[1:])
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


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return what the steps and validations of a run logged, resumed ones too.

    Raises:
        ValueError: If a line is damaged.
    """
    lines = []
    for file in sorted(folder.glob('*/vis_data/scalars.json')):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise ValueError(
                    f'{file}: line {number} cannot be read ({error}); remove that line, or {folder} to '
                    'train again'
                ) from None
    return lines


def read_curve(folder: Path, metric: str) -> list[tuple[int, float]]:
    """Return the pairs (epoch, figure) that the validations of a run logged, resumed ones too.

    Raises:
        ValueError: If a validation stands before any training step.
    """
    lines = read_log(folder)
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
    for line in read_log(folder):
        if metric in line:
            final = {key: value for key, value in line.items() if '/' in key}
    return final
