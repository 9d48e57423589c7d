"""Does the trainings of a set one after another; skips what is done, resumes what is not."""

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ..files import write_json
from .calling import call, read_json
from .sets import ExperimentSet, Run

START = 'run.json'
RESULT = 'result.json'


def work_dir(out: Path, run: Run, seed: int) -> Path:
    """Return the work folder of a run."""
    return out / f'{run.name}_seed{seed}'


def run_all(experiments: ExperimentSet, out: Path, data_root: str, seeds: int) -> None:
    """Do every run of a set that has no result yet.

    The command of a run stands in ``run.json`` of its work folder from its beginning on, so that it is
    not taken for another.

    Args:
        experiments: The set.
        out: Folder of the work folders.
        data_root: Folder of the data set.
        seeds: Number of seeds, from 0 on.

    Raises:
        SystemExit: If a training fails, which has said why.
        ValueError: If a work folder holds a run with other settings, or a training was not evaluated.
    """
    runs = [(seed, run) for seed in range(seeds) for run in experiments.runs]
    for seed, run in runs:
        check_settings(work_dir(out, run, seed), run, seed, data_root)
    for seed, run in runs:
        folder = work_dir(out, run, seed)
        if (folder / RESULT).is_file():
            print(f'{folder}: done')
            continue
        line = command(run, folder, seed, data_root)
        print(shlex.join(line), flush=True)
        write_json(folder / START, dict(command=shlex.join(line)))
        try:
            call(*line[1:])
        finally:
            if len([*folder.iterdir()]) == 1:  # it did not begin
                (folder / START).unlink()
                folder.rmdir()
        _write_result(folder, experiments.metric, line)


def check_settings(folder: Path, run: Run, seed: int, data_root: str | None = None) -> None:
    """Make sure that a work folder belongs to a run, if there is anything in it.

    Args:
        folder: The work folder.
        run: The run.
        seed: Its seed.
        data_root: Folder of its data; with None any data will do.

    Raises:
        ValueError: If another command was run there.
    """
    for file in (folder / START, folder / RESULT):
        if not file.is_file():
            continue
        stored = shlex.split(read_json(file)['command'])
        wanted = command(run, folder, seed, data_root or '')
        if _settings(stored, data_root) != _settings(wanted, data_root):
            raise ValueError(
                f'{file}: is of other settings or data ({shlex.join(stored)}); now asked for: '
                f'{shlex.join(wanted)}; choose another --out, or remove the folder'
            )


def _settings(line: Sequence[str], data_root: str | None) -> list[str]:
    """Return a command without its work folder, and without its data where they do not matter."""
    place = line.index('--work-dir') if '--work-dir' in line else len(line)
    kept = [*line[:place], *line[place + 2 :]]
    return [word for word in kept if data_root is not None or not word.startswith('data_root=')]


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


def _write_result(folder: Path, metric: str, line: list[str]) -> None:
    curve = read_curve(folder, metric)
    if not curve:
        raise ValueError(f'{folder}: no validation wrote {metric}')
    result = dict(
        command=shlex.join(line),
        seconds=round(read_seconds(folder)),
        curve=curve,
        loss=read_loss(folder),
    )
    write_json(folder / RESULT, result)


def read_seconds(folder: Path) -> float:
    """Return how long a run has trained and validated: all its stages, and the parts of a resumed one.

    A part lasts from the time in its folder's name to the last line of its log.
    """
    seconds = 0.0
    for file in folder.rglob('vis_data/scalars.json'):
        with suppress(ValueError):  # a folder of another name
            start = datetime.strptime(file.parents[1].name, '%Y%m%d_%H%M%S').timestamp()
            seconds += max(file.stat().st_mtime - start, 0)
    return seconds


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return what the steps and validations of a run logged, resumed ones too.

    Raises:
        ValueError: If a line is damaged.
    """
    lines = []
    for file in sorted(folder.glob('*/vis_data/scalars.json')):
        for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1):
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


def read_loss(folder: Path) -> float | None:
    """Return the mean loss of the detector over the last epoch that a run logged, None without any.

    The regularizer and a teacher's loss, which other networks do not have, are left out.
    """
    lines = [line for line in read_log(folder) if 'loss' in line]
    if not lines:
        return None
    last = max(line['epoch'] for line in lines)
    added = 'loss_hoyer', 'loss_distill'
    losses = {
        line['step']: line['loss'] - sum(line.get(key, 0.0) for key in added)
        for line in lines
        if line['epoch'] == last
    }
    return statistics.mean(losses.values())


def read_final(folder: Path, metric: str) -> dict[str, float]:
    """Return all figures of the last validation of a run that logged ``metric``; no name without ``/``."""
    final: dict[str, float] = {}
    for line in read_log(folder):
        if metric in line:
            final = {key: value for key, value in line.items() if '/' in key}
    return final
