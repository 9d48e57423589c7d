"""Table and plot of exported files: figure against milliseconds."""

import datetime
from pathlib import Path
from typing import Any

from ..files import write_text
from .calling import read_json
from .deployed import RESULT
from .plotting import plot
from .sets import ExperimentSet

_SERIES = {
    'spiking': 'spiking, 5-bit weights, spike engine',
    'relu_int8': 'ReLU twin, int8, ONNX Runtime',
    'relu_float32': 'ReLU twin, float32, ONNX Runtime',
}


def write_deployed_report(experiments: ExperimentSet, out: Path) -> str:
    """Write ``deployed.md`` and ``deployed.png`` of what :func:`deploy_all` measured.

    Args:
        experiments: The set.
        out: Folder of the results.

    Returns:
        The table; empty where nothing was measured.
    """
    file = out / RESULT
    if not file.is_file():
        return ''
    measured = read_json(file)
    day = datetime.date.fromtimestamp(file.stat().st_mtime)
    lines = [
        f'{experiments.title}; exported files, one thread, {measured["processor"]}, {day}',
        '',
        f'| run | seed | file | {experiments.metric} | neurons that fire | ms, median | quartiles |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in measured['rows']:
        rate = '' if row['spike_rate'] is None else f'{row["spike_rate"]:.1%}'
        low, high = row['quartiles']
        lines.append(
            f'| {row["run"]} | {row["seed"]} | {_SERIES[row["form"]]} | {row["metric"]:.3f} | {rate} '
            f'| {row["milliseconds"]:.2f} | {low:.2f} to {high:.2f} |'
        )
    table = '\n'.join(lines) + '\n'
    write_text(out / 'deployed.md', table)
    _plot(experiments, measured['rows'], out / 'deployed.png')
    return table


def _plot(experiments: ExperimentSet, rows: list[dict[str, Any]], file: Path) -> None:
    with plot(file, experiments.title) as axes:
        for index, (form, label) in enumerate(_SERIES.items()):
            points = sorted((r['milliseconds'], r['metric'], r) for r in rows if r['form'] == form)
            if not points:
                continue
            times, figures, found = zip(*points, strict=True)
            axes.plot(times, figures, f'C{index}o', label=label)
            for number, (time, reached, row) in enumerate(zip(times, figures, found, strict=True)):
                text, place = row['run'].replace('_', ' '), dict(xytext=(0, -12), ha='center')
                if row['spike_rate'] is not None:
                    text += f', {row["spike_rate"]:.0%} fire'
                    right = number % 2 == 0
                    place = dict(xytext=(6 if right else -6, -2), ha='left' if right else 'right')
                axes.annotate(
                    text, (time, reached), fontsize=7, textcoords='offset points', **place
                )
        axes.set(xlabel='milliseconds an image, one thread', ylabel=experiments.metric)
        axes.set_xlim(left=0, right=1.15 * max(row['milliseconds'] for row in rows))
