"""Writes an analysis as CSV, JSON and one self-contained HTML page."""

import csv
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from jinja2 import Environment
from matplotlib import rc_context

from . import plots
from .tables import (
    LIMITS,
    NO_RELU_TWIN,
    Analysis,
    density,
    digits,
    energy_rows,
    explanations,
    layer_rows,
    neuron_rows,
    number,
    summary,
    totals,
)

Table = tuple[list[str], list[list[object]]]  # head and rows


def write_report(analysis: Analysis, folder: str | Path) -> list[Path]:
    """Write ``report.html``, ``summary.json``, ``layers.csv`` and ``neurons.csv``.

    With noise also ``noise.png``. Everything is made before the first file is written.

    Args:
        analysis: What to write.
        folder: Where to; made if it does not exist.

    Returns:
        The files.
    """
    contents: dict[str, bytes] = {
        'layers.csv': _csv(layer_rows(analysis.measured, analysis.table)),
        'neurons.csv': _csv(neuron_rows(analysis.measured)),
        'summary.json': json.dumps(summary(analysis), indent=1).encode(),
    }
    if analysis.noise:
        stream = io.BytesIO()
        with rc_context({'text.parse_math': False}):
            plots.noise_curves(analysis).savefig(stream, format='png', dpi=130)
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


def render(analysis: Analysis) -> str:
    """Return the page; every text in it is escaped.

    Args:
        analysis: What it shows.
    """
    measured = analysis.measured
    # Names may hold dollar signs, which are no formulas.
    with rc_context({'text.parse_math': False}):
        pictures = dict(
            totals=plots.data_uri(plots.energy_totals(analysis)),
            by_layer=plots.data_uri(plots.energy_by_layer(analysis)),
            rates=plots.data_uri(plots.spike_rates(analysis.models)),
            potentials=plots.data_uri(plots.potential_histograms(analysis.models)),
            maps=[
                plots.data_uri(plots.spike_maps(measured, analysis.maps, image), 'png')
                for image in (measured.pictures if analysis.maps else ())
            ],
        )
        if analysis.noise:
            pictures['noise'] = plots.data_uri(plots.noise_curves(analysis))
    template = Path(__file__).with_name('report.html').read_text(encoding='utf-8')
    return (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            analysis=analysis,
            measured=measured,
            cards=_cards(analysis),
            comparison=_comparison_table(analysis),
            energy=_energy_table(analysis),
            no_relu_twin=NO_RELU_TWIN,
            layers=_layer_table(analysis),
            densities=_density_table(analysis),
            explanations=explanations(measured),
            neurons=_neuron_table(analysis),
            noise=_noise_table(analysis),
            pictures=pictures,
            limits=LIMITS,
        )
    )


def _csv(rows: list[dict[str, Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def _both(cost: dict[str, float]) -> str:
    return f'{digits(cost["compute_uj"])} | {digits(cost["total_uj"])}'


def _cards(analysis: Analysis) -> list[tuple[str, str]]:
    total = totals(analysis.measured)
    energies = {row['network']: row[analysis.table.name] for row in energy_rows(analysis)}
    cards = [
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
    ]
    for own, relu, skipped in (
        ('fp32', 'ReLU twin, fp32', 'zeros skipped, fp32'),
        ('int8 weights', 'ReLU twin, int8', 'zeros skipped, int8'),
    ):
        text = f'{own}, computation | with memory; {relu} {_both(energies[relu])}'
        for name in list(analysis.without_spikes)[:1]:
            text += f'; {name}, {skipped} {_both(energies[f"{name}, {skipped}"])}'
        cards.append((f'{_both(energies[f"{analysis.name}, {own}"])} µJ', text))
    return cards


def _comparison_table(analysis: Analysis) -> Table:
    energies = {row['network']: row[analysis.table.name] for row in energy_rows(analysis)}
    head = ['network', 'parameters', 'dense', 'input not 0', 'additions', 'multiply', '0/1 share']
    head += ['spike rate', 'dead', 'near', 'fp32 µJ', 'int8 µJ']
    rows = []
    for name, measured in analysis.models.items():
        total = totals(measured)
        spiking = bool(measured.neurons)
        fp32, int8 = ('fp32', 'int8 weights') if spiking else ('fp32', 'int8')
        rows.append(
            [
                name,
                number(total['parameters']),
                number(total['dense_macs']),
                number(total['effective_operations']),
                number(total['accumulates']),
                number(total['remaining_macs']),
                f'{total["binary_share"]:.1%}',
                f'{total["spike_rate"]:.1%}' if spiking else '-',
                f'{total["dead_channels"]} of {total["channels"]}' if spiking else '-',
                f'{total["near_level"]:.1%}' if spiking else '-',
                _both(energies[f'{name}, {fp32}']),
                _both(energies[f'{name}, {int8}']),
            ]
        )
    return head, rows


def _energy_table(analysis: Analysis) -> Table:
    names = list(analysis.tables)
    rows = [[row['network'], *(_both(row[n]) for n in names)] for row in energy_rows(analysis)]
    return ['network', *names], rows


def _layer_table(analysis: Analysis) -> Table:
    head = ['layer', 'input', 'density', 'dense', 'additions', 'multiply', 'weights B', 'read B']
    head += ['written B', 'µJ', '+ memory', 'ReLU µJ', '+ memory']
    found = layer_rows(analysis.measured, analysis.table)
    numeric = [key for key, value in found[0].items() if isinstance(value, float | int)]
    total = {key: sum(row[key] for row in found) for key in numeric}
    rows = [
        [
            row['layer'],
            row.get('input', ''),
            density(row) if 'input' in row else '',
            number(row['dense_macs']),
            number(row['accumulates'] + row['map_additions']),
            number(row['remaining_macs']),
            number(row['weight_bytes_fp32']),
            number(row['read_bytes_fp32']),
            number(row['written_bytes_fp32']),
            digits(row['compute_uj_fp32']),
            digits(row['compute_uj_fp32'] + row['memory_uj_fp32']),
            digits(row['relu_compute_uj_fp32']),
            digits(row['relu_compute_uj_fp32'] + row['relu_memory_uj_fp32']),
        ]
        for row in [*found, dict(total, layer='total')]
    ]
    return head, rows


def _density_table(analysis: Analysis) -> Table:
    """Density of the inputs by layer and network; nothing where there is one network."""
    if len(analysis.models) < 2:
        return [], []
    by_name = [
        {row['layer']: density(row) for row in layer_rows(measured, analysis.table)}
        for measured in analysis.models.values()
    ]
    layers = dict.fromkeys(layer for found in by_name for layer in found)
    rows = [[layer, *(found.get(layer, '-') for found in by_name)] for layer in layers]
    return ['layer', *analysis.models], rows


def _neuron_table(analysis: Analysis) -> Table:
    head = ['neurons', 'channels', 'spike rate', 'least', 'most', 'dead', 'saturated', '|v|']
    head += ['level', 'range', 'near']
    rows = [
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
        for row in neuron_rows(analysis.measured)
    ]
    return head, rows


def _noise_table(analysis: Analysis) -> Table:
    sigmas = sorted({sigma for curve in analysis.noise.values() for sigma in curve})
    rows = [
        [name, *(f'{curve[sigma]:.3f}' for sigma in sigmas)]
        for name, curve in analysis.noise.items()
    ]
    return ['sigma', *(f'{sigma:g}' for sigma in sigmas)], rows
