"""Table, plot and commands of a set of runs."""

import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import write_text
from .calling import read_json
from .plotting import plot
from .running import RESULT, check_settings, work_dir
from .sets import ExperimentSet, Run


def write_report(experiments: ExperimentSet, out: Path, seeds: int) -> str:
    """Write ``table.md``, ``plot.png`` and ``commands.sh`` of what is done.

    Args:
        experiments: The set.
        out: Folder of the work folders.
        seeds: Number of seeds.

    Returns:
        The table. A run without a result says so.

    Raises:
        ValueError: If a result cannot be read, or is of other settings.
    """
    results = {run.name: _results(out, run, seeds) for run in experiments.runs}
    table = _table(experiments, results)
    write_text(out / 'table.md', table)
    lines = [result['command'] for found in results.values() for result in found]
    write_text(out / 'commands.sh', ''.join(f'{line}\n' for line in lines))
    if lines:
        _plot(experiments, results, out / 'plot.png')
    return table


def _results(out: Path, run: Run, seeds: int) -> list[dict[str, Any]]:
    for seed in range(seeds):
        check_settings(work_dir(out, run, seed), run, seed)
    files = [work_dir(out, run, seed) / RESULT for seed in range(seeds)]
    return [{'seed': s, **read_json(file)} for s, file in enumerate(files) if file.is_file()]


def _table(experiments: ExperimentSet, results: dict[str, list[dict[str, Any]]]) -> str:
    references = {run.name: run.reference or experiments.runs[0].name for run in experiments.runs}
    rows = [
        f'{experiments.title}, {experiments.metric}, {os.cpu_count()} cores ({platform.machine()}), '
        f'{datetime.date.today()}',
        '',
        f'| run | {experiments.metric} | seeds | in relation | training loss, last epoch | hours |',
        '|---|---|---|---|---|---|',
    ]
    for name, found in results.items():
        finals = _finals(found)
        if not finals:
            rows.append(f'| {name} | not run | | | | |')
            continue
        reference = references[name]
        share = None if name == reference else _share(found, results[reference])
        part = '' if share is None else f'{share:.2f} of {reference}'
        hours = sum(result['seconds'] for result in found) / len(found) / 3600
        losses = [result['loss'] for result in found if result.get('loss') is not None]
        loss = spread(losses, '.3f') if losses else ''
        mean = spread(finals, '.3f')
        rows.append(f'| {name} | {mean} | {len(finals)} | {part} | {loss} | {hours:.2f} |')
    return '\n'.join(rows) + '\n'


def spread(values: Sequence[float], form: str) -> str:
    """Return mean and, of several values, standard deviation as text, each in a format."""
    text = format(statistics.mean(values), form)
    return text + (f' ± {statistics.stdev(values):{form}}' if len(values) > 1 else '')


def _share(found: list[dict[str, Any]], reference: list[dict[str, Any]]) -> float | None:
    """Return the share of the reference's mean figure over the seeds that both have, None without any."""
    seeds = {r['seed'] for r in found} & {r['seed'] for r in reference}
    own, whole = (
        sum(_finals([r for r in results if r['seed'] in seeds])) for results in (found, reference)
    )
    return own / whole if whole else None


def _finals(results: list[dict[str, Any]]) -> list[float]:
    return [result['curve'][-1][1] for result in results]


def _plot(experiments: ExperimentSet, results: dict[str, list[dict[str, Any]]], file: Path) -> None:
    with plot(file, experiments.title, size=(6, 4)) as axes:
        for index, (name, found) in enumerate(results.items()):
            for number, result in enumerate(found):
                label = name if number == 0 else None
                axes.plot(*zip(*result['curve'], strict=True), f'C{index}.-', label=label)
        axes.set(xlabel='epoch', ylabel=experiments.metric)
