"""Rows and totals of a measurement, as they go to the screen and into CSV, JSON and the report."""

from typing import Any

from .energy import ENERGY_TABLES, NUMBER_FORMATS, EnergyTable
from .measure import Measurement
from .memory import traffic
from .twins import RELU_FP32, RELU_INT8, Network, layer_cost, network_cost, spiking_rows, twin_rows


def layer_rows(measured: Measurement, table: EnergyTable) -> list[dict[str, Any]]:
    """Return a row for each layer that was counted; all numbers but the densities are per image.

    Args:
        measured: What was seen of a network.
        table: Energy of the single operations.
    """
    rows = []
    for layer in measured.layers:
        images = layer.images
        density = layer.active / max(layer.inputs, 1)
        row = {
            'layer': layer.name,
            'kind': layer.kind,
            'calls': layer.calls / images,
            'input': {'binary': '0/1'}.get(layer.input_kind, layer.input_kind),
            'input_density': density,
            'input_density_std': _std(layer.densities),
            'input_density_min': min(layer.densities, default=0.0),
            'input_density_max': max(layer.densities, default=0.0),
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
        networks = [('', network) for network in spiking_rows('spiking')]
        networks += [('relu_', RELU_FP32), ('relu_', RELU_INT8)]
        for prefix, network in networks:
            cost = layer_cost(layer, table, network)
            row[f'{prefix}compute_uj_{network.number_format}'] = cost.compute
            row[f'{prefix}memory_uj_{network.number_format}'] = cost.memory
        rows.append(row)
    return rows


def neuron_rows(measured: Measurement) -> list[dict[str, Any]]:
    """Return a row for each layer of neurons.

    Args:
        measured: What was seen of a network.
    """
    rows = []
    for name, spikes in measured.spikes.items():
        potentials = measured.potentials[name]
        rows.append(
            {
                'layer': name,
                'channels': spikes.channels,
                'spike_rate': spikes.mean_rate,
                'spike_rate_std': spikes.spread,
                'spike_rate_min': min(spikes.rates),
                'spike_rate_max': max(spikes.rates),
                'dead_channels': spikes.dead,
                'saturated_channels': spikes.saturated,
                'threshold': potentials.threshold,
                'firing_level': float(potentials.levels.mean()),
                'firing_level_min': float(potentials.levels.min()),
                'firing_level_max': float(potentials.levels.max()),
                'near_level': potentials.near_share,
            }
        )
    return rows


def totals(measured: Measurement) -> dict[str, float]:
    """Return the sums over all layers for one image.

    Args:
        measured: What was seen of a network.
    """
    layers, images = measured.layers, measured.images
    dense = sum(layer.dense for layer in layers)
    binary = sum(layer.dense for layer in layers if layer.input_kind == 'binary')
    neurons = sum(spikes.neurons * spikes.channels for spikes in measured.spikes.values())
    fired = sum(int(spikes.fired.sum()) for spikes in measured.spikes.values())
    potentials = measured.potentials.values()
    near = sum(layer.near for layer in potentials)
    result = {
        'images': images,
        'dense_macs': dense / images,
        'accumulates': sum(layer.accumulates for layer in layers) / images,
        'remaining_macs': sum(layer.multiply_accumulates for layer in layers) / images,
        'map_additions': sum(layer.additions for layer in layers) / images,
        'binary_share': binary / dense if dense else 0.0,
        'neurons': neurons / images,
        'spikes': fired / images,
        'spike_rate': fired / neurons if neurons else 0.0,
        'near_level': near / max(sum(layer.total for layer in potentials), 1),
        'channels': sum(spikes.channels for spikes in measured.spikes.values()),
        'dead_channels': sum(spikes.dead for spikes in measured.spikes.values()),
        'saturated_channels': sum(spikes.saturated for spikes in measured.spikes.values()),
    }
    for number_format in NUMBER_FORMATS:
        moved = [traffic(layer, number_format) for layer in layers]
        result[f'weight_bytes_{number_format}'] = sum(t.weights for t in moved)
        result[f'activation_bytes_{number_format}'] = sum(t.reads + t.writes for t in moved)
    return result


def network_rows(
    models: dict[str, Measurement],
) -> list[tuple[Network, Measurement]]:
    """Return what is compared: the first network, the twins of its shape, and the other networks.

    Args:
        models: Measurements by name; the first is the one the twins belong to.
    """
    first = next(iter(models.values()))
    rows = []
    for number, (name, measured) in enumerate(models.items()):
        rows += [(network, measured) for network in spiking_rows(name)]
        if number == 0:
            rows += [(network, first) for network in twin_rows()]
    return rows


def energy_rows(models: dict[str, Measurement], table: EnergyTable) -> list[dict[str, Any]]:
    """Return the energy of one image for everything that is compared, under every table.

    Args:
        models: Measurements by name; the first is the one the twins belong to.
        table: The table that was asked for; the built-in ones follow it.
    """
    tables = {table.name: table, **{k: t for k, t in ENERGY_TABLES.items() if k != table.name}}
    rows = []
    for network, measured in network_rows(models):
        row: dict[str, Any] = {'network': network.label}
        for name, constants in tables.items():
            cost = network_cost(measured.layers, constants, network)
            row[name] = {
                'compute_uj': cost.compute,
                'memory_uj': cost.memory,
                'total_uj': cost.total,
            }
        rows.append(row)
    return rows


def _std(values: list[float]) -> float:
    """Standard deviation of exactly these values."""
    if not values:
        return 0.0
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
