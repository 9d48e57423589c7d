"""Pictures of a measurement, as matplotlib figures."""

import base64
import io
import math
import statistics

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .energy import RELU_FP32, RELU_INT8, layer_cost, networks
from .measure import Measurement
from .neurons import NeuronStatistics
from .tables import Analysis, digits, energy_rows

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
    models = {name: m for name, m in models.items() if m.neurons}
    layers = list(dict.fromkeys(layer for m in models.values() for layer in m.neurons))
    figure, axes = _rows_figure(layers, len(models))
    height = 0.8 / len(models)
    for number, (name, measured) in enumerate(models.items()):
        places = [
            layers.index(layer) + (number - (len(models) - 1) / 2) * height
            for layer in measured.neurons
        ]
        neurons = measured.neurons.values()
        axes.barh(
            places,
            [100 * layer.mean_rate for layer in neurons],
            height,
            xerr=[100 * statistics.pstdev(layer.rates) for layer in neurons],
            color=_COLORS[number % len(_COLORS)],
            error_kw=dict(ecolor='#333', lw=1, capsize=2),
            label=name,
        )
    axes.set_xlim(left=0)
    axes.set_xlabel('neurons that fire, %')
    if len(models) > 1:
        axes.legend(loc='best')
    return figure


def energy_totals(analysis: Analysis) -> Figure:
    """Draw the energy of one image for each network, computation and memory stacked.

    Args:
        analysis: What was measured.
    """
    rows, table = energy_rows(analysis), analysis.table
    labels = [row['network'] for row in rows]
    figure, axes = _rows_figure(labels, 1.2)
    compute = [row[table.name]['compute_uj'] for row in rows]
    memory = [row[table.name]['memory_uj'] for row in rows]
    axes.barh(range(len(rows)), compute, 0.65, color=_COLORS[0], label='computation')
    axes.barh(range(len(rows)), memory, 0.65, left=compute, color='#b9c7d3', label='memory access')
    for place, both in enumerate(zip(compute, memory, strict=True)):
        axes.text(sum(both), place, f'  {digits(sum(both))}', va='center')
    axes.set_xlim(0, 1.12 * max(a + b for a, b in zip(compute, memory, strict=True)))
    axes.set_xlabel(f'microjoules an image, table {table.name}')
    axes.legend(loc='lower right')
    return figure


def energy_by_layer(analysis: Analysis) -> Figure:
    """Draw the energy of each layer beside that of ReLU twins, without and with memory.

    The ReLU twins of its shape skip no zeros; where a network without spikes was measured, the first
    such is drawn with its zeros skipped.

    Args:
        analysis: What was measured.
    """
    layers = [layer for layer in analysis.measured.layers if layer.dense]
    names = [layer.name for layer in layers]
    figure = Figure((WIDTH, 1.3 + 0.22 * len(names)), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True, sharex=True)
    drawn = [(n, layers) for n in (*networks(analysis.name, True), RELU_FP32, RELU_INT8)]
    for name, measured in list(analysis.without_spikes.items())[:1]:
        found = [layer for layer in measured.layers if layer.name in names]
        drawn += [(network, found) for network in networks(name, False)[2:]]
    styles = [(_COLORS[0], 'o'), ('#7fb2d9', 'D'), (_COLORS[1], 's'), ('#e8a0aa', '^')]
    styles += [(_COLORS[2], 'x'), ('#9ccfa5', '+')]
    for (color, marker), (network, found) in zip(styles, drawn, strict=False):
        costs = [layer_cost(layer, analysis.table, network) for layer in found]
        places = [names.index(layer.name) for layer in found]
        style = dict(color=color, marker=marker, ls='none', ms=5)
        left.plot([c.compute for c in costs], places, label=network.label, **style)
        right.plot([c.total for c in costs], places, **style)
    for axes, title in ((left, 'computation alone'), (right, 'with memory access')):
        _name_rows(axes, names)
        axes.set_xscale('log')
        axes.xaxis.set_major_formatter('{x:g}')
        axes.xaxis.set_minor_formatter('')
        axes.set_title(title, fontsize=10)
        axes.set_xlabel('microjoules an image (logarithmic)')
    figure.legend(loc='outside lower center', ncols=3, frameon=False)
    return figure


def potential_histograms(models: dict[str, Measurement]) -> Figure:
    """Draw, for each layer, the histogram of z = u / |v| with firing level and clip threshold.

    Args:
        models: Measurements by name; the first is filled, the others are outlines where they have a
            layer of the same name.
    """
    models = {name: m for name, m in models.items() if m.neurons}
    first, *others = models.values()
    columns = 4
    lines = math.ceil(len(first.neurons) / columns)
    figure = Figure((WIDTH, 0.5 + 1.85 * lines), layout='constrained')
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, (name, layer) in zip(grid, first.neurons.items(), strict=False):
        centres, density = _density(layer)
        axes.fill_between(centres, density, step='mid', color='#a9c9e2', lw=0)
        for number, other in enumerate(others, start=1):
            if name in other.neurons:
                axes.step(
                    *_density(other.neurons[name]),
                    where='mid',
                    color=_COLORS[number % len(_COLORS)],
                    lw=1,
                )
        levels = layer.levels
        if levels.numel() > 1:
            axes.axvspan(float(levels.min()), float(levels.max()), color=_LEVEL, alpha=0.2, lw=0)
        axes.axvline(float(levels.mean()), color=_LEVEL, lw=1.4)
        axes.axvline(1.0, color='#222', lw=1.1, ls='--')
        near = [m.neurons[name].near_share for m in models.values() if name in m.neurons]
        axes.set_title(
            f'{name}\n{" | ".join(f"{100 * share:.1f}" for share in near)} % near', fontsize=7.5
        )
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        axes.set_xlim(layer.low, layer.high)
        axes.set_ylim(bottom=0)
        axes.spines[['top', 'right', 'left']].set_visible(False)
    for axes in grid[len(first.neurons) :]:
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


def spike_maps(measured: Measurement, names: list[str], image: int) -> Figure:
    """Draw the share of channels that fire at each place, over an image.

    Args:
        measured: What was counted on a network.
        names: Layers to draw.
        image: Number of the image, one of ``measured.pictures``.
    """
    columns = 4
    lines = math.ceil((len(names) + 1) / columns)
    figure = Figure((WIDTH, 2.9 * lines), layout='constrained')
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    picture = measured.pictures[image]
    height, width = picture.map_shape
    for axes in grid:
        axes.axis('off')
    grid[0].imshow(picture.pixels)
    grid[0].set_title(f'image {image + 1}\n{picture.name}'.strip(), fontsize=7.5)
    color = colormaps['inferno']
    for axes, name in zip(grid[1:], names, strict=False):
        spike_map = measured.neurons[name].maps.get(image)
        if spike_map is None:  # of a second stage that had nothing to do
            continue
        axes.imshow(picture.pixels.mean(2), cmap='gray', vmin=0, vmax=255)
        axes.imshow(
            spike_map,
            cmap=color,
            vmin=0,
            alpha=0.72,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation='nearest',
        )
        axes.set_xlim(-0.5, picture.pixels.shape[1] - 0.5)
        axes.set_ylim(picture.pixels.shape[0] - 0.5, -0.5)
        rows, columns_ = spike_map.shape
        axes.set_title(
            f'{name}\n{rows}x{columns_}, {spike_map.mean():.0%} fire, up to {spike_map.max():.0%}',
            fontsize=7.5,
        )
    return figure


def noise_curves(analysis: Analysis) -> Figure:
    """Draw a metric against the strength of the noise, a line for each model.

    Args:
        analysis: What was measured.
    """
    figure = Figure((7.2, 3.8), layout='constrained')
    axes = figure.subplots()
    for number, (name, curve) in enumerate(analysis.noise.items()):
        color = _COLORS[number % len(_COLORS)]
        axes.plot(list(curve), list(curve.values()), 'o-', ms=4, color=color, label=name)
    axes.set_xlabel("standard deviation of the noise, in units of each layer's threshold |v|")
    axes.set_ylabel(analysis.metric)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _density(layer: NeuronStatistics) -> tuple[list[float], list[float]]:
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
