"""Writes a measurement as CSV, JSON and one self-contained HTML page."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from . import plots
from .energy import ENERGY_TABLES, EnergyTable
from .measure import Measurement
from .report_template import LIMITS, TEMPLATE
from .tables import energy_rows, layer_rows, neuron_rows, totals


@dataclass
class Analysis:
    """Everything that a report shows.

    Attributes:
        models: Measurements by name; the first is the network that the report is about.
        table: Energy of the single operations.
        maps: Layers whose spike maps are shown.
        facts: Where the numbers come from: config, checkpoint, data, date and so on, by name.
        command: Command that made the report.
        metric: Name of the metric under noise.
        noise: Metric by strength of the noise, by name of the model; empty where none was asked for.
        seed: Seed of the noise.
        cross_check: Counts of other projects for one image, by name; empty where none were asked for.
    """

    models: dict[str, Measurement]
    table: EnergyTable
    maps: list[str]
    facts: dict[str, Any]
    command: str
    metric: str = ''
    noise: dict[str, dict[float, float]] = field(default_factory=dict)
    seed: int = 0
    cross_check: dict[str, Any] = field(default_factory=dict)


def write_report(analysis: Analysis, folder: str | Path) -> list[Path]:
    """Write ``report.html``, ``summary.json``, ``layers.csv`` and ``neurons.csv``.

    With noise also ``noise.png``. Everything is made before the first file is written.

    Args:
        analysis: What to write.
        folder: Where to; made if it does not exist.

    Returns:
        The files.
    """
    _, measured = next(iter(analysis.models.items()))
    layers, neurons = layer_rows(measured, analysis.table), neuron_rows(measured)
    contents: dict[str, bytes] = {
        'layers.csv': _csv(layers),
        'neurons.csv': _csv(neurons),
        'summary.json': json.dumps(summary(analysis), indent=1).encode(),
    }
    if analysis.noise:
        stream = io.BytesIO()
        _noise_figure(analysis).savefig(stream, format='png', dpi=130)
        contents['noise.png'] = stream.getvalue()
    contents['report.html'] = render(analysis).encode()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        # Renamed when complete: an interrupted run leaves the earlier file as it was.
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(content)
        os.chmod(file.name, 0o644)
        os.replace(file.name, folder / name)
    return [folder / name for name in contents]


def summary(analysis: Analysis) -> dict[str, Any]:
    """Return the totals, rows and energies as plain data for JSON.

    Args:
        analysis: What to sum up.
    """
    models = {}
    for name, measured in analysis.models.items():
        models[name] = dict(
            totals=totals(measured),
            layers=layer_rows(measured, analysis.table),
            neurons=neuron_rows(measured),
            not_counted=measured.not_counted,
            not_run=measured.not_run,
        )
    tables = {analysis.table.name: analysis.table, **ENERGY_TABLES}
    return dict(
        facts=analysis.facts,
        command=analysis.command,
        models=models,
        energy=energy_rows(analysis.models, analysis.table),
        energy_tables={
            name: dict(
                source=table.source,
                operations_pj=table.operations,
                weight_access_pj_per_byte=table.weight_access,
                activation_access_pj_per_byte=table.activation_access,
                memory=table.memory,
            )
            for name, table in tables.items()
        },
        noise=dict(metric=analysis.metric, seed=analysis.seed, curves=analysis.noise),
        cross_check=analysis.cross_check,
        left_out=LIMITS,
    )


def render(analysis: Analysis) -> str:
    """Return the page.

    Args:
        analysis: What it shows.
    """
    title, measured = next(iter(analysis.models.items()))
    table = analysis.table
    energies = energy_rows(analysis.models, table)
    pictures = dict(
        totals=plots.data_uri(plots.energy_totals(energies, table)),
        by_layer=plots.data_uri(plots.energy_by_layer(measured, table, title)),
        rates=plots.data_uri(plots.spike_rates(analysis.models)),
        potentials=plots.data_uri(plots.potential_histograms(analysis.models)),
    )
    if analysis.maps:
        pictures['maps'] = plots.data_uri(plots.spike_maps(measured, analysis.maps), 'png')
    if analysis.noise:
        pictures['noise'] = plots.data_uri(_noise_figure(analysis))
    tables = {table.name: table, **ENERGY_TABLES}
    page = Environment(autoescape=True).from_string(TEMPLATE)
    return page.render(
        title=title,
        facts=', '.join(f'{key} {value}' for key, value in analysis.facts.items()),
        command=analysis.command,
        cards=_cards(measured, energies, table),
        comparison=_comparison(analysis, energies),
        table=table,
        tables='; '.join(f'{name}: {t.memory}' for name, t in tables.items()),
        energy=_energy_table(energies),
        layers=_layer_table(measured, table),
        neurons=_neuron_table(measured),
        pictures=pictures,
        maps=analysis.maps,
        noise=_noise_table(analysis) if analysis.noise else '',
        noise_note=(
            f'{analysis.metric} of the whole split when Gaussian noise (seed {analysis.seed}) is added '
            "to what every neuron receives; sigma is in units of each layer's clip threshold |v|."
        ),
        not_counted=measured.not_counted,
        not_run=measured.not_run,
        cross_check=_cross_check(analysis.cross_check),
        limits=LIMITS,
    )


def _noise_figure(analysis: Analysis) -> Figure:
    return plots.noise_curves(analysis.noise, analysis.metric)


def _csv(rows: list[dict[str, Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def number(value: float) -> str:
    """Return a number with a metric prefix and three digits: 1234567 is ``1.23 M``."""
    for factor, prefix in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(value) >= factor:
            return f'{_digits(value / factor)} {prefix}'
    return f'{value:.0f}' if value == round(value) else _digits(value)


def _digits(value: float) -> str:
    """Three digits, never as a power of ten."""
    if value == 0:
        return '0'
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f'{value:,.{places}f}'


def _html_table(head: Sequence[str], rows: Iterable[Sequence[object]], main: int = 0) -> Markup:
    """Return a table; the first ``main`` rows are marked, and one that begins with 'total'."""

    def cells(tag: str, values: Sequence[object]) -> Markup:
        return Markup('').join(Markup(f'<{tag}>{{}}</{tag}>').format(value) for value in values)

    body = Markup('')
    for place, row in enumerate(rows):
        kind = 'main' if place < main else 'total' if row[0] == 'total' else 'plain'
        body += Markup('<tr class="{}">{}</tr>\n').format(kind, cells('td', row))
    return Markup('<table><thead><tr>{}</tr></thead><tbody>\n{}</tbody></table>').format(
        cells('th', head), body
    )


def _cards(
    measured: Measurement, energies: list[dict[str, Any]], table: EnergyTable
) -> list[tuple[str, str]]:
    total = totals(measured)
    ours, ours_int8, relu, relu_int8 = (row[table.name] for row in energies[:4])
    return [
        (number(total['dense_macs']), 'dense multiply-accumulates an image'),
        (number(total['accumulates']), 'additions that take their place'),
        (number(total['remaining_macs']), 'multiply-accumulates that remain'),
        (
            f'{total["binary_share"]:.1%}',
            'of the dense operations read inputs verified to be 0 or 1',
        ),
        (f'{total["spike_rate"]:.1%}', f'of {number(total["neurons"])} neurons fire'),
        (
            f'{total["dead_channels"]} + {total["saturated_channels"]}',
            f'dead and saturated channels of {total["channels"]}',
        ),
        (
            f'{_digits(ours["compute_uj"])} | {_digits(ours["total_uj"])} µJ',
            f'fp32, computation | with memory; ReLU twin {_digits(relu["compute_uj"])} | '
            f'{_digits(relu["total_uj"])}',
        ),
        (
            f'{_digits(ours_int8["compute_uj"])} | {_digits(ours_int8["total_uj"])} µJ',
            f'int8 weights; ReLU twin {_digits(relu_int8["compute_uj"])} | '
            f'{_digits(relu_int8["total_uj"])}',
        ),
    ]


def _comparison(analysis: Analysis, energies: list[dict[str, Any]]) -> Markup | str:
    if len(analysis.models) < 2:
        return ''
    by_label = {row['network']: row[analysis.table.name] for row in energies}
    head = ['network', 'dense', 'additions', 'multiply', '0/1 share', 'spike rate', 'dead', 'near']
    head += ['fp32 µJ', '+ memory', 'int8 µJ', '+ memory']
    rows = []
    for name, measured in analysis.models.items():
        total = totals(measured)
        fp32, int8 = by_label[f'{name}, fp32'], by_label[f'{name}, int8 weights']
        spiking = bool(measured.spikes)
        rows.append(
            [
                name,
                number(total['dense_macs']),
                number(total['accumulates']),
                number(total['remaining_macs']),
                f'{total["binary_share"]:.1%}',
                f'{total["spike_rate"]:.1%}' if spiking else '-',
                f'{total["dead_channels"]} of {total["channels"]}' if spiking else '-',
                f'{total["near_level"]:.1%}' if spiking else '-',
                *(
                    _digits(cost[key])
                    for cost in (fp32, int8)
                    for key in ('compute_uj', 'total_uj')
                ),
            ]
        )
    return Markup(
        '<section class="tight"><h2>Networks measured</h2><p class="note">Each by its own checkpoint, per '
        'image. <b>Near</b>: share of potentials closer to their firing level than 0.1 |v|. A ReLU '
        'network measured is run as it is, dense.</p><div class="wide">{}</div></section>'
    ).format(_html_table(head, rows, 1))


def _energy_table(energies: list[dict[str, Any]]) -> Markup:
    names = [key for key in energies[0] if key != 'network']
    rows = []
    for row in energies:
        cells = (f'{_digits(row[n]["compute_uj"])} | {_digits(row[n]["total_uj"])}' for n in names)
        rows.append([row['network'], *cells])
    return _html_table(['network', *names], rows, 2)


def _layer_table(measured: Measurement, table: EnergyTable) -> Markup:
    head = ['layer', 'input', 'density', 'dense', 'additions', 'multiply', 'weights B', 'read B']
    head += ['written B', 'µJ', '+ memory', 'ReLU µJ', '+ memory']
    found = layer_rows(measured, table)
    numeric = [key for key, value in found[0].items() if isinstance(value, float | int)]
    total = {key: sum(row[key] for row in found) for key in numeric}
    rows = []
    for row in [*found, dict(total, layer='total')]:
        density = f'{row["input_density"]:.1%} ± {100 * row["input_density_std"]:.1f}'
        rows.append(
            [
                row['layer'],
                row.get('input', ''),
                density if 'input' in row else '',
                number(row['dense_macs']),
                number(row['accumulates'] + row['map_additions']),
                number(row['remaining_macs']),
                number(row['weight_bytes_fp32']),
                number(row['read_bytes_fp32']),
                number(row['written_bytes_fp32']),
                _digits(row['compute_uj_fp32']),
                _digits(row['compute_uj_fp32'] + row['memory_uj_fp32']),
                _digits(row['relu_compute_uj_fp32']),
                _digits(row['relu_compute_uj_fp32'] + row['relu_memory_uj_fp32']),
            ]
        )
    return _html_table(head, rows)


def _neuron_table(measured: Measurement) -> Markup:
    head = [
        'neurons',
        'channels',
        'spike rate',
        'least',
        'most',
        'dead',
        'saturated',
        '|v|',
        'level',
    ]
    head += ['range', 'near']
    return _html_table(
        head,
        [
            [
                row['layer'],
                row['channels'],
                f'{row["spike_rate"]:.1%} ± {100 * row["spike_rate_std"]:.1f}',
                f'{row["spike_rate_min"]:.1%}',
                f'{row["spike_rate_max"]:.1%}',
                row['dead_channels'],
                row['saturated_channels'],
                f'{row["threshold"]:.3f}',
                f'{row["firing_level"]:.3f}',
                f'{row["firing_level_min"]:.2f} to {row["firing_level_max"]:.2f}',
                f'{row["near_level"]:.1%}',
            ]
            for row in neuron_rows(measured)
        ],
    )


def _noise_table(analysis: Analysis) -> Markup:
    sigmas = sorted({sigma for curve in analysis.noise.values() for sigma in curve})
    rows = [
        [name, *(f'{curve[sigma]:.3f}' for sigma in sigmas)]
        for name, curve in analysis.noise.items()
    ]
    return _html_table(['sigma', *(f'{sigma:g}' for sigma in sigmas)], rows)


def _cross_check(found: dict[str, Any]) -> Markup | str:
    return Markup('; ').join(escape(f'{key} {value}') for key, value in found.items())
