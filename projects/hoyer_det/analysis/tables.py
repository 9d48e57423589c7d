"""Rows and totals of an analysis, as they go to the screen and into CSV, JSON and the report."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from .energy import (
    ENERGY_TABLES,
    ESTIMATED_TWINS,
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
from .explanations import LIMITS, explanations, neuron_explanations
from .measure import Measurement
from .timing import Duration


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
        durations: Wall-clock time of one image by name of the model; empty where none was measured.
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
    durations: dict[str, Duration] = field(default_factory=dict)

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
        return {name: m for name, m in self.models.items() if not m.spiking}


def layer_rows(measured: Measurement, table: EnergyTable) -> list[dict[str, Any]]:
    """Return a row for each layer that was counted; all numbers but the densities are per image.

    Args:
        measured: What was counted on a network.
        table: Energy of the single operations.
    """
    own = [('', network) for network in networks('', measured.spiking)[:2]]
    if not measured.spiking:
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
    """Return a row for each layer of neurons; of channels None where their number changed.

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


def totals(measured: Measurement) -> dict[str, float | None]:
    """Return the sums over all layers for one image; of neurons None where none was measured.

    Args:
        measured: What was counted on a network.
    """
    layers, images, neurons = measured.layers, measured.images, measured.neurons.values()
    dense = sum(layer.dense for layer in layers)
    binary = sum(layer.dense for layer in layers if layer.input_kind == 'binary')
    total = sum(layer.total for layer in neurons)
    fired = sum(layer.spikes for layer in neurons)
    by_channel = [layer for layer in neurons if layer.channels is not None]
    result = {
        'images': images,
        'parameters': measured.parameters,
        'dense_macs': dense / images,
        'effective_operations': sum(layer.effective for layer in layers) / images,
        'accumulates': sum(layer.accumulates for layer in layers) / images,
        'remaining_macs': sum(layer.multiply_accumulates for layer in layers) / images,
        'map_additions': sum(layer.additions for layer in layers) / images,
        'binary_share': binary / dense if dense else 0.0,
    }
    of_neurons = {
        'neurons': total / images,
        'spikes': fired / images,
        'spike_rate': fired / max(total, 1),
        'near_level': sum(layer.near for layer in neurons) / max(total, 1),
        'channels': sum(layer.channels for layer in by_channel),
        'dead_channels': sum(layer.dead for layer in by_channel),
        'saturated_channels': sum(layer.saturated for layer in by_channel),
    }
    result.update(of_neurons if neurons else dict.fromkeys(of_neurons))
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
        ways += [(network, measured) for network in networks(name, measured.spiking)]
        if measured is first:
            ways += [(network, first) for network in ESTIMATED_TWINS]
    rows = []
    for network, measured in ways:
        row: dict[str, Any] = {'network': network.label}
        for name, table in analysis.tables.items():
            cost = network_cost(measured.layers, table, network)
            row[name] = dict(compute_uj=cost.compute, memory_uj=cost.memory, total_uj=cost.total)
        rows.append(row)
    return rows


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
                milliseconds=asdict(analysis.durations[name]) if analysis.durations else None,
                totals=totals(measured),
                layers=layer_rows(measured, analysis.table),
                neurons=neuron_rows(measured),
                explanations={**explanations(measured), **neuron_explanations(measured)},
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
