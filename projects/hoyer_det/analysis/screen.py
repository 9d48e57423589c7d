"""An analysis as text, for the screen."""

from .explanations import NO_RELU_TWIN, explanations, neuron_explanations
from .tables import Analysis, density, digits, energy_rows, layer_rows, number, totals


def as_text(analysis: Analysis) -> str:
    """Return a line for each layer, the totals and the energies, for the screen.

    Args:
        analysis: What to show.
    """
    measured, table = analysis.measured, analysis.table
    rows = layer_rows(measured, table)
    width = max(len(row['layer']) for row in rows)
    lines = [
        f'{"layer":<{width}}  {"dense":>8}  {"density":>13}  input  {"add":>8}  {"multiply":>8}'
    ]
    lines += [
        f'{row["layer"]:<{width}}  {number(row["dense_macs"]):>8}  {density(row):>13}  '
        f'{row["input"]:<5}  {number(row["accumulates"] + row["map_additions"]):>8}  '
        f'{number(row["remaining_macs"]):>8}'
        for row in rows
    ]
    lines += [f'{layer}: {why}' for layer, why in explanations(measured).items()]
    lines += [f'{layer}: {why}' for layer, why in neuron_explanations(measured).items()]
    lines += [f'not counted: {what}: {why}' for what, why in measured.not_counted.items()]
    if measured.not_run:
        lines.append(f'did not run: {", ".join(measured.not_run)}')
    total = totals(measured)
    lines.append(
        f'{analysis.name}, {measured.images} images: an image takes {number(total["dense_macs"])} '
        f'dense multiply-accumulates, {total["binary_share"]:.1%} of them on inputs verified to be 0 '
        f'or 1; {number(total["accumulates"])} additions and {number(total["remaining_macs"])} '
        f'multiply-accumulates remain. {total["spike_rate"]:.1%} of the neurons fire.'
    )
    lines += [
        f'{name}: {digits(found.median)} ms an image (least {digits(found.least)})'
        for name, found in analysis.durations.items()
    ]
    energies = energy_rows(analysis)
    width = max(len(row['network']) for row in energies)
    lines += [
        '',
        f'Microjoules an image ({table.name}; {table.memory})',
        f'{"":<{width}}  {"computation":>11}  {"memory":>8}  {"total":>8}',
    ]
    for row in energies:
        cost = row[table.name]
        lines.append(
            f'{row["network"]:<{width}}  {cost["compute_uj"]:>11.2f}  {cost["memory_uj"]:>8.2f}  '
            f'{cost["total_uj"]:>8.2f}'
        )
    if not analysis.without_spikes:
        lines.append(NO_RELU_TWIN)
    for name, curve in analysis.noise.items():
        points = ', '.join(f'{sigma:g}: {value:.3f}' for sigma, value in curve.items())
        lines.append(f'{analysis.metric} under noise, {name}: {points}')
    lines += [f'{counter}: {counts}' for counter, counts in analysis.cross_check.items()]
    if 'warning' in analysis.facts:
        lines.append(f'warning: {analysis.facts["warning"]}')
    return '\n'.join(lines)
