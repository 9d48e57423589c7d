"""Plots of what the runs of a set reached."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import replacing


@contextmanager
def plot(file: Path, title: str, size: tuple[float, float] = (7, 4.5)) -> Iterator[Any]:
    """Write a plot as PNG when the block, which draws it, ends without error.

    Args:
        file: The PNG.
        title: Title of the plot.
        size: Width and height in inches.

    Yields:
        Matplotlib's axes; they get a grid and the legend.
    """
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots()
    yield axes
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc='lower right', fontsize=8)
    with replacing(file) as part:
        figure.savefig(part, format='png', dpi=120)
