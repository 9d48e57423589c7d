"""Table and plot of what the networks of a set cost: figure against energy."""

from pathlib import Path
from typing import Any

from ..files import write_text
from .calling import read_json
from .costs import COSTS, TABLE
from .plotting import plot
from .report import spread
from .running import work_dir
from .sets import ExperimentSet


def write_costs_report(experiments: ExperimentSet, out: Path, seeds: int) -> str:
    """Write ``costs.md`` and ``costs.png`` of what :func:`measure_costs` found.

    Args:
        experiments: The set.
        out: Folder of the work folders.
        seeds: Number of seeds.

    Returns:
        The table, means and standard deviations over the seeds; empty where nothing was measured.
    """
    found = {run.name: _costs(out, run, seeds) for run in experiments.runs}
    found = {name: costs for name, costs in found.items() if costs}
    if not found:
        return ''
    others = sorted({key for costs in found.values() for key in costs[0]['figures']})
    others = [key for key in others if key.endswith('mAP') and key != experiments.metric]
    heads = [experiments.metric, *others, 'seeds', 'neurons that fire', 'µJ: computation']
    heads += ['with memory', f'{experiments.metric} for 100 µJ']
    rows = [
        f'{experiments.title}: energy of an image, {TABLE}, float32; zeros of ReLU networks skipped',
        '',
        f'| run | {" | ".join(heads)} |',
        '|---' * (1 + len(heads)) + '|',
    ]
    for name, costs in found.items():
        figures = [
            spread([cost['figures'][key] for cost in costs], '.3f')
            for key in (experiments.metric, *others)
        ]
        rates = [cost['spike_rate'] for cost in costs]
        rate = '' if None in rates else spread(rates, '.1%')
        energies = [spread([c[key] for c in costs], '.0f') for key in ('compute_uj', 'total_uj')]
        gain = [100 * cost['figures'][experiments.metric] / cost['total_uj'] for cost in costs]
        cells = [name, *figures, str(len(costs)), rate, *energies, spread(gain, '.3f')]
        rows.append(f'| {" | ".join(cells)} |')
    table = '\n'.join(rows) + '\n'
    write_text(out / 'costs.md', table)
    _plot(experiments, found, out / 'costs.png')
    return table


def _costs(out: Path, run: Any, seeds: int) -> list[dict[str, Any]]:
    files = [work_dir(out, run, seed) / COSTS for seed in range(seeds)]
    return [read_json(file) for file in files if file.is_file()]


def _plot(experiments: ExperimentSet, found: dict[str, list[dict[str, Any]]], file: Path) -> None:
    with plot(file, experiments.title) as axes:
        for index, (name, costs) in enumerate(found.items()):
            energies = [cost['total_uj'] for cost in costs]
            figures = [cost['figures'][experiments.metric] for cost in costs]
            axes.plot(energies, figures, f'C{index}o', label=name.replace('_', ' '))
        axes.set(xlabel='µJ an image, memory included', ylabel=experiments.metric)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
