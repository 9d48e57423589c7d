"""Rows and totals of an analysis, as they go to the screen and into CSV, JSON and the report."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from .energy import (
    DENSE_ONE_BIT,
    ENERGY_TABLES,
    NUMBER_FORMATS,
    RELU_FP32,
    RELU_INT8,
    EnergyTable,
    Network,
    layer_cost,
    network_cost,
    networks,
    traffic,
)
from .measure import Measurement


@dataclass
class Analysis:
    """Everything that a report shows.

    Attributes:
        models: Measurements by name; the first is the network that the report is about.
        table: Energy of the single operations.
        maps: Layers whose spike maps are shown.
        facts: Where the numbers come from: config, checkpoint, mAP, data, date and so on, by name.
        accuracy: mAP and where it comes from, by name of the model.
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
    accuracy: dict[str, str]
    command: str
    metric: str = ''
    noise: dict[str, dict[float, float]] = field(default_factory=dict)
    seed: int = 0
    cross_check: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the network that the report is about."""
        return next(iter(self.models))

    @property
    def measured(self) -> Measurement:
        """Measurement of the network that the report is about."""
        return self.models[self.name]

    @property
    def tables(self) -> dict[str, EnergyTable]:
        """The energy table asked for, and the built-in ones after it."""
        return {self.table.name: self.table, **ENERGY_TABLES}

    @property
    def without_spikes(self) -> dict[str, Measurement]:
        """The networks measured that have no neurons, such as ReLU twins."""
        return {name: m for name, m in self.models.items() if not m.neurons}


def layer_rows(measured: Measurement, table: EnergyTable) -> list[dict[str, Any]]:
    """Return a row for each layer that was counted; all numbers but the densities are per image.

    Args:
        measured: What was counted on a network.
        table: Energy of the single operations.
    """
    own = [('', network) for network in networks('', bool(measured.neurons))[:2]]
    if not measured.neurons:
        own += [('zeros_skipped_', network) for network in networks('', False)[2:]]
    ways = [*own, ('relu_', RELU_FP32), ('relu_', RELU_INT8)]
    rows = []
    for layer in measured.layers:
        images = layer.images
        row = {
            'layer': layer.name,
            'kind': layer.kind,
            'calls': layer.calls / images,
            'input': {'binary': '0/1'}.get(layer.input_kind, layer.input_kind),
            'input_density': layer.active / max(layer.inputs, 1),
            'input_density_std': statistics.pstdev(layer.densities or [0.0]),
            'input_density_min': min(layer.densities, default=0.0),
            'input_density_max': max(layer.densities, default=0.0),
            'density_before_pooling': layer.density_before_pooling,
            'dense_macs': layer.dense / images,
            'effective_operations': layer.effective / images,
            'accumulates': layer.accumulates / images,
            'remaining_macs': layer.multiply_accumulates / images,
            'map_additions': layer.additions / images,
        }
        for number_format in NUMBER_FORMATS:
            moved = traffic(layer, number_format)
            row[f'weight_bytes_{number_format}'] = moved.weights
            row[f'read_bytes_{number_format}'] = moved.reads
            row[f'written_bytes_{number_format}'] = moved.writes
        for prefix, network in ways:
            cost = layer_cost(layer, table, network)
            row[f'{prefix}compute_uj_{network.number_format}'] = cost.compute
            row[f'{prefix}memory_uj_{network.number_format}'] = cost.memory
        rows.append(row)
    return rows


def neuron_rows(measured: Measurement) -> list[dict[str, Any]]:
    """Return a row for each layer of neurons.

    Args:
        measured: What was counted on a network.
    """
    return [
        {
            'layer': name,
            'channels': layer.channels,
            'spike_rate': layer.mean_rate,
            'spike_rate_std': statistics.pstdev(layer.rates),
            'spike_rate_min': min(layer.rates),
            'spike_rate_max': max(layer.rates),
            'dead_channels': layer.dead,
            'saturated_channels': layer.saturated,
            'threshold': layer.threshold,
            'firing_level': float(layer.levels.mean()),
            'firing_level_min': float(layer.levels.min()),
            'firing_level_max': float(layer.levels.max()),
            'near_level': layer.near_share,
        }
        for name, layer in measured.neurons.items()
    ]


def totals(measured: Measurement) -> dict[str, float]:
    """Return the sums over all layers for one image.

    Args:
        measured: What was counted on a network.
    """
    layers, images, neurons = measured.layers, measured.images, measured.neurons.values()
    dense = sum(layer.dense for layer in layers)
    binary = sum(layer.dense for layer in layers if layer.input_kind == 'binary')
    total = sum(layer.total for layer in neurons)
    fired = sum(int(layer.fired.sum()) for layer in neurons)
    result = {
        'images': images,
        'parameters': measured.parameters,
        'dense_macs': dense / images,
        'effective_operations': sum(layer.effective for layer in layers) / images,
        'accumulates': sum(layer.accumulates for layer in layers) / images,
        'remaining_macs': sum(layer.multiply_accumulates for layer in layers) / images,
        'map_additions': sum(layer.additions for layer in layers) / images,
        'binary_share': binary / dense if dense else 0.0,
        'neurons': total / images,
        'spikes': fired / images,
        'spike_rate': fired / max(total, 1),
        'near_level': sum(layer.near for layer in neurons) / max(total, 1),
        'channels': sum(layer.channels for layer in neurons),
        'dead_channels': sum(layer.dead for layer in neurons),
        'saturated_channels': sum(layer.saturated for layer in neurons),
    }
    for number_format in NUMBER_FORMATS:
        moved = [traffic(layer, number_format) for layer in layers]
        result[f'weight_bytes_{number_format}'] = sum(t.weights for t in moved)
        result[f'activation_bytes_{number_format}'] = sum(t.reads + t.writes for t in moved)
    return result


def energy_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """Return the energy of one image for everything that is compared, under every table.

    First the network of the report, then the twins of its shape that skip no zeros, then the other
    networks measured; those without spikes with and without their zeros.

    Args:
        analysis: What was measured.
    """
    first = analysis.measured
    ways: list[tuple[Network, Measurement]] = []
    for name, measured in analysis.models.items():
        ways += [(network, measured) for network in networks(name, bool(measured.neurons))]
        if measured is first:
            ways += [(network, first) for network in (RELU_FP32, RELU_INT8, *DENSE_ONE_BIT)]
    rows = []
    for network, measured in ways:
        row: dict[str, Any] = {'network': network.label}
        for name, table in analysis.tables.items():
            cost = network_cost(measured.layers, table, network)
            row[name] = dict(compute_uj=cost.compute, memory_uj=cost.memory, total_uj=cost.total)
        rows.append(row)
    return rows


def explanations(measured: Measurement) -> list[tuple[str, str]]:
    """Return layers whose row may surprise, with the reason.

    Args:
        measured: What was counted on a network.
    """
    found = []
    for number, layer in enumerate(measured.layers):
        before = layer.density_before_pooling
        density = layer.active / max(layer.inputs, 1)
        if before is not None and density > before:
            found.append(
                (
                    layer.name,
                    f'reads after max pooling, which raises the density from {before:.1%} to '
                    f'{density:.1%}: the maximum of a window is 0 only where all its entries are',
                )
            )
        if layer.kind == 'addition' or not measured.neurons:
            continue
        if layer.input_kind == 'count':
            found.append((layer.name, 'multiplies: it reads sums of spikes, whole numbers above 1'))
        elif layer.input_kind == 'real' and number:
            found.append((layer.name, 'multiplies: it reads numbers, not the outputs of neurons'))
    return found


def summary(analysis: Analysis) -> dict[str, Any]:
    """Return the totals, rows and energies as plain data for JSON.

    Args:
        analysis: What to sum up.
    """
    return dict(
        facts=analysis.facts,
        command=analysis.command,
        models={
            name: dict(
                accuracy=analysis.accuracy[name],
                totals=totals(measured),
                layers=layer_rows(measured, analysis.table),
                neurons=neuron_rows(measured),
                explanations=dict(explanations(measured)),
                not_counted=measured.not_counted,
                not_run=measured.not_run,
            )
            for name, measured in analysis.models.items()
        },
        energy=energy_rows(analysis),
        energy_tables={
            name: dict(
                source=table.source,
                operations_pj=table.operations,
                weight_access_pj_per_byte=table.weight_access,
                activation_access_pj_per_byte=table.activation_access,
                memory=table.memory,
            )
            for name, table in analysis.tables.items()
        },
        noise=dict(metric=analysis.metric, seed=analysis.seed, curves=analysis.noise),
        cross_check=analysis.cross_check,
        left_out=LIMITS,
    )


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
    lines += [f'{layer}: {why}' for layer, why in explanations(measured)]
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
    return '\n'.join(lines)


def number(value: float) -> str:
    """Return a number with a metric prefix and three digits: 1234567 is ``1.23 M``."""
    for factor, prefix in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(value) >= factor:
            return f'{digits(value / factor)} {prefix}'
    return f'{value:.0f}' if value == round(value) else digits(value)


def digits(value: float) -> str:
    """Return three digits, never as a power of ten."""
    if value == 0:
        return '0'
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f'{value:,.{places}f}'


def density(row: dict[str, Any]) -> str:
    """Return the density of a row of a layer, with its standard deviation, in percent."""
    return f'{row["input_density"]:.1%} ± {100 * row["input_density_std"]:.1f}'


NO_RELU_TWIN = (
    'ReLU twin, zeros skipped: not measured; its zeros are those of a trained network, '
    'give one with --compare-twin relu CHECKPOINT'
)

LIMITS = (
    'Norms, pooling, neurons (one comparison each), biases, up-sampling, decoding of boxes and NMS: none '
    'is counted. Norms in evaluation fold into the layer before them. The additions of two feature maps '
    'of a residual network are counted.',
    'Zeros are skipped for free, in spiking and ReLU networks alike: finding the active inputs, routing '
    'them and the irregular order of reading weights cost nothing here. Hardware that does not skip zeros '
    'pays for the rows without it. Skipped zeros save no memory access: the inputs are read all the same.',
    'Memory is counted once: each weight once an image, each input once a call of its layer, each output '
    'once. A real chip reads weights or inputs several times when they do not fit beside its adders, and '
    'reads weights of active inputs only when there are few; registers, address logic, control, leakage '
    'and clock are left out.',
    'Partial sums (membrane potentials) stay beside the adders: with one time step nothing is kept from '
    'one step to the next.',
    'The constants are those of single operations on a chip of a given technology, not of a device. '
    'Compare columns, not chips.',
    'int8 costs are those of the same operations on 8-bit weights; that the network keeps its accuracy '
    'with them is not shown here.',
    'Padding counts as dense operations, as FLOP counters have it, and as a zero where zeros are skipped.',
)
