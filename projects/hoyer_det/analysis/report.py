"""Writes an analysis as CSV, JSON and one self-contained HTML page."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib import rc_context

from ..files import replacing
from . import plots
from .explanations import LIMITS, NO_RELU_TWIN, explanations, neuron_explanations
from .tables import (
    Analysis,
    density,
    digits,
    energy_rows,
    layer_rows,
    neuron_rows,
    number,
    summary,
    totals,
)

REPORT_FILES = ('report.html', 'summary.json', 'layers.csv', 'neurons.csv', 'noise.png')


def write_report(analysis: Analysis, folder: str | Path) -> list[Path]:
    """Write ``report.html``, ``summary.json``, ``layers.csv`` and ``neurons.csv``.

    With noise also ``noise.png``; without it, that of an earlier report in the folder is removed.
    Everything is made before the first file is written.

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
    replaces = (folder / 'report.html').exists()
    # The largest first, which is the likeliest not to fit.
    for name in sorted(contents, key=lambda name: -len(contents[name])):
        with replacing(folder / name) as part:
            part.write_bytes(contents[name])
    if replaces and not analysis.noise:
        (folder / 'noise.png').unlink(missing_ok=True)
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
    page = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    page.filters.update(
        number=number,
        digits=digits,
        percent='{:.1%}'.format,
        density=density,
        known=lambda count: '-' if count is None else count,
        both=lambda cost: f'{digits(cost["compute_uj"])} | {digits(cost["total_uj"])}',
    )
    rows = {name: layer_rows(m, analysis.table) for name, m in analysis.models.items()}
    energies = energy_rows(analysis)
    return page.from_string(Path(__file__).with_name('report.html').read_text('utf-8')).render(
        analysis=analysis,
        measured=measured,
        pictures=pictures,
        totals={name: totals(m) for name, m in analysis.models.items()},
        energies=energies,
        uj={row['network']: row[analysis.table.name] for row in energies},
        layers=rows[analysis.name],
        densities={
            name: {row['layer']: density(row) for row in found} for name, found in rows.items()
        },
        neurons=neuron_rows(measured),
        explanations=explanations(measured),
        neuron_explanations=neuron_explanations(measured),
        no_relu_twin=NO_RELU_TWIN,
        limits=LIMITS,
    )


def _csv(rows: list[dict[str, Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()
