"""Pictures of a measurement, as matplotlib figures."""

import base64
import io
import math
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .energy import EnergyTable
from .measure import Measurement
from .potentials import LayerPotentials
from .twins import RELU_FP32, RELU_INT8, layer_cost, spiking_rows

WIDTH = 11.6  # inches; the report shows them 1160 pixels wide
_COLORS = ('#1b6ca8', '#d1495b', '#3a7d44', '#8f5aa5', '#2a9d8f', '#5c6770')
_LEVEL = '#f08c00'  # of the firing level; in no curve


def data_uri(figure: Figure, kind: str = 'svg') -> str:
    """Return a figure as an address that holds the picture itself.

    Args:
        figure: Figure to draw.
        kind: ``'svg'`` for lines, ``'png'`` for images.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=110)
    kind = {'svg': 'svg+xml'}.get(kind, kind)
    return f'data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}'


def spike_rates(models: dict[str, Measurement]) -> Figure:
    """Draw the spike rate of each layer through the depth; the whisker is the spread over images.

    Args:
        models: Measurements by name; those without neurons are left out.
    """
    models = {name: m for name, m in models.items() if m.spikes}
    layers = list(dict.fromkeys(layer for m in models.values() for layer in m.spikes))
    figure, axes = _rows_figure(layers, len(models))
    height = 0.8 / len(models)
    for number, (name, measured) in enumerate(models.items()):
        places = [
            layers.index(layer) + (number - (len(models) - 1) / 2) * height
            for layer in measured.spikes
        ]
        spikes = measured.spikes.values()
        axes.barh(
            places,
            [100 * layer.mean_rate for layer in spikes],
            height,
            xerr=[100 * layer.spread for layer in spikes],
            color=_COLORS[number % len(_COLORS)],
            error_kw=dict(ecolor='#333', lw=1, capsize=2),
            label=name,
        )
    axes.set_xlim(left=0)
    axes.set_xlabel('neurons that fire, %')
    if len(models) > 1:
        axes.legend(loc='best')
    return figure


def energy_totals(rows: list[dict[str, Any]], table: EnergyTable) -> Figure:
    """Draw the energy of one image for each network, computation and memory stacked.

    Args:
        rows: As :func:`.tables.energy_rows` returns them.
        table: Which table to draw.
    """
    labels = [row['network'] for row in rows]
    figure, axes = _rows_figure(labels, 1.2)
    compute = [row[table.name]['compute_uj'] for row in rows]
    memory = [row[table.name]['memory_uj'] for row in rows]
    axes.barh(range(len(rows)), compute, 0.65, color=_COLORS[0], label='computation')
    axes.barh(range(len(rows)), memory, 0.65, left=compute, color='#b9c7d3', label='memory access')
    for place, both in enumerate(zip(compute, memory, strict=True)):
        axes.text(sum(both), place, f'  {_short(sum(both))}', va='center')
    axes.set_xlim(0, 1.12 * max(a + b for a, b in zip(compute, memory, strict=True)))
    axes.set_xlabel(f'microjoules an image, table {table.name}')
    axes.legend(loc='lower right')
    return figure


def energy_by_layer(measured: Measurement, table: EnergyTable, name: str) -> Figure:
    """Draw the energy of each layer beside that of the ReLU twins, without and with memory.

    Args:
        measured: What was seen of a network.
        table: Energy of the single operations.
        name: Name of the network.
    """
    layers = [layer for layer in measured.layers if layer.dense]
    names = [layer.name for layer in layers]
    figure = Figure((WIDTH, 1.3 + 0.22 * len(names)), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True, sharex=True)
    networks = [*spiking_rows(name), RELU_FP32, RELU_INT8]
    styles = [(_COLORS[0], 'o'), ('#7fb2d9', 'D'), (_COLORS[1], 's'), ('#e8a0aa', '^')]
    for (color, marker), network in zip(styles, networks, strict=True):
        costs = [layer_cost(layer, table, network) for layer in layers]
        style = dict(color=color, marker=marker, ls='none', ms=5)
        left.plot([c.compute for c in costs], range(len(names)), label=network.label, **style)
        right.plot([c.total for c in costs], range(len(names)), **style)
    for axes, title in ((left, 'computation alone'), (right, 'with memory access')):
        _name_rows(axes, names)
        axes.set_xscale('log')
        axes.set_title(title, fontsize=10)
        axes.set_xlabel('microjoules an image (logarithmic)')
    figure.legend(loc='outside lower center', ncols=4, frameon=False)
    return figure


def potential_histograms(models: dict[str, Measurement]) -> Figure:
    """Draw, for each layer, the histogram of z = u / |v| with firing level and clip threshold.

    Args:
        models: Measurements by name; the first is filled, the others are outlines where they have a
            layer of the same name.
    """
    models = {name: m for name, m in models.items() if m.potentials}
    first, *others = models.values()
    columns = 4
    lines = math.ceil(len(first.potentials) / columns)
    figure = Figure((WIDTH, 0.5 + 1.85 * lines), layout='constrained')
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, (name, layer) in zip(grid, first.potentials.items(), strict=False):
        centres, density = _density(layer)
        axes.fill_between(centres, density, step='mid', color='#a9c9e2', lw=0)
        for number, other in enumerate(others, start=1):
            if name in other.potentials:
                axes.step(
                    *_density(other.potentials[name]),
                    where='mid',
                    color=_COLORS[number % len(_COLORS)],
                    lw=1,
                )
        levels = layer.levels
        if levels.numel() > 1:
            axes.axvspan(float(levels.min()), float(levels.max()), color=_LEVEL, alpha=0.2, lw=0)
        axes.axvline(float(levels.mean()), color=_LEVEL, lw=1.4)
        axes.axvline(1.0, color='#222', lw=1.1, ls='--')
        near = [m.potentials[name].near_share for m in models.values() if name in m.potentials]
        axes.set_title(
            f'{name}\n{" | ".join(f"{100 * share:.1f}" for share in near)} % near', fontsize=7.5
        )
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        axes.set_xlim(layer.low, layer.high)
        axes.set_ylim(bottom=0)
        axes.spines[['top', 'right', 'left']].set_visible(False)
    for axes in grid[len(first.potentials) :]:
        axes.set_visible(False)
    names = list(models)
    handles = [
        Patch(color='#a9c9e2', label=names[0]),
        *(
            Line2D([], [], color=_COLORS[n % len(_COLORS)], label=name)
            for n, name in enumerate(names)
            if n
        ),
        Line2D([], [], color=_LEVEL, label='firing level: extremum x scale (band: channels)'),
        Line2D([], [], color='#222', ls='--', label='clip threshold |v| (z = 1)'),
    ]
    figure.legend(handles=handles, loc='outside upper center', ncols=4, frameon=False, fontsize=8)
    return figure


def spike_maps(measured: Measurement, names: list[str]) -> Figure:
    """Draw the share of channels that fire at each place, over the image.

    Args:
        measured: What was seen of a network.
        names: Layers to draw.
    """
    columns = 4
    lines = math.ceil((len(names) + 1) / columns)
    figure = Figure((WIDTH, 2.9 * lines), layout='constrained')
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    height, width = measured.map_shape
    for axes in grid:
        axes.axis('off')
    grid[0].imshow(measured.picture)
    grid[0].set_title('image', fontsize=8)
    color = colormaps['inferno']
    for axes, name in zip(grid[1:], names, strict=False):
        spikes = measured.spikes[name]
        axes.imshow(measured.picture.mean(2), cmap='gray', vmin=0, vmax=255)
        axes.imshow(
            spikes.spike_map,
            cmap=color,
            vmin=0,
            alpha=0.72,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation='nearest',
        )
        axes.set_xlim(-0.5, measured.picture.shape[1] - 0.5)
        axes.set_ylim(measured.picture.shape[0] - 0.5, -0.5)
        rows, columns_ = spikes.spike_map.shape
        axes.set_title(
            f'{name}\n{rows}x{columns_}, {spikes.spike_map.mean():.0%} fire, '
            f'up to {spikes.spike_map.max():.0%}',
            fontsize=7.5,
        )
    return figure


def noise_curves(curves: dict[str, dict[float, float]], metric: str) -> Figure:
    """Draw a metric against the strength of the noise, a line for each model.

    Args:
        curves: Metric by strength, by name of the model.
        metric: Name of the metric.
    """
    figure = Figure((7.2, 3.8), layout='constrained')
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        color = _COLORS[number % len(_COLORS)]
        axes.plot(list(curve), list(curve.values()), 'o-', ms=4, color=color, label=name)
    axes.set_xlabel("standard deviation of the noise, in units of each layer's threshold |v|")
    axes.set_ylabel(metric)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _density(layer: LayerPotentials) -> tuple[list[float], list[float]]:
    step = (layer.high - layer.low) / len(layer.counts)
    centres = [layer.low + step * (i + 0.5) for i in range(len(layer.counts))]
    return centres, (layer.counts / (layer.total * step)).tolist()


def _rows_figure(names: list[str], bars: float) -> tuple[Figure, Axes]:
    """A figure with a named row for each entry, the first on top."""
    figure = Figure((WIDTH, 0.8 + len(names) * (0.12 + 0.12 * bars)), layout='constrained')
    axes = figure.subplots()
    _name_rows(axes, names)
    return figure, axes


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis='x', alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)


def _short(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'
