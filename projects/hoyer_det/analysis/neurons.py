"""What the neurons of each layer do: spike rates, dead channels, maps, histograms of potentials."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..spiking import HoyerSpike
from .observation import observe_neurons

BINS = 120
NEAR = 0.1


@dataclass
class NeuronStatistics:
    """Spikes and potentials z = u / |v| of one ``HoyerSpike`` layer over all images.

    Attributes:
        threshold: Clip threshold |v|, in the units of u.
        levels: Firing levels s * E in the units of z, one or one per channel.
        low: Lower edge of the histogram.
        high: Upper edge.
        fired: Spikes of each channel, shape (C,), int64; None where the number of channels changed from
            one input to the next, so that none of them is the same twice.
        spikes: Spikes of all channels.
        total: Neurons of all channels.
        rates: Spike rate of each image.
        maps: Share of the channels that fire at each place, (H, W), by number of the image.
        counts: Potentials in each bin of the histogram, float64.
        below: Potentials under the lower edge.
        above: Potentials over the upper edge.
        near: Potentials closer to their firing level than 0.1.
    """

    threshold: float
    levels: Tensor
    low: float
    high: float
    fired: Tensor | None
    spikes: int = 0
    total: int = 0
    rates: list[float] = field(default_factory=list)
    maps: dict[int, Tensor] = field(default_factory=dict)
    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))
    below: int = 0
    above: int = 0
    near: int = 0

    @property
    def channels(self) -> int | None:
        """Number of channels; None where it changed."""
        return None if self.fired is None else len(self.fired)

    @property
    def neurons(self) -> int | None:
        """Neurons of one channel; None where the number of channels changed."""
        return None if self.fired is None else self.total // len(self.fired)

    @property
    def mean_rate(self) -> float:
        """Spike rate over all images."""
        return self.spikes / self.total

    @property
    def dead(self) -> int | None:
        """Channels that never fired; None where their number changed."""
        return None if self.fired is None else int((self.fired == 0).sum())

    @property
    def saturated(self) -> int | None:
        """Channels in which every neuron fired on every image; None where their number changed."""
        return None if self.fired is None else int((self.fired == self.neurons).sum())

    def count(self, fired: Tensor, total: int) -> None:
        """Add the spikes of one application.

        Args:
            fired: Spikes of each channel, shape (C,), int64.
            total: Neurons of all channels.
        """
        if self.fired is not None:
            self.fired = self.fired + fired if len(fired) == len(self.fired) else None
        self.spikes += int(fired.sum())
        self.total += total

    @property
    def near_share(self) -> float:
        """Share of the potentials closer to their firing level than 0.1."""
        return self.near / self.total


class NeuronRecorder:
    """Collects statistics of all neurons, by the channels of :func:`channel_dimension`.

    The range of a layer's histogram covers [-0.5, 1.5] and all but two in a thousand of the potentials
    of its first application; what falls outside later is counted as such.

    Args:
        model: Network that holds ``HoyerSpike`` layers, in evaluation mode.
        map_images: Numbers of the images, from 0, whose spike maps are kept.

    Attributes:
        layers: Statistics by name of the layer, in the order of execution.

    Example::

        recorder = NeuronRecorder(net)
        for x in images:
            with recorder.image():
                net(x)
    """

    def __init__(self, model: nn.Module, map_images: Collection[int] = (0,)) -> None:
        self._model = model
        self._map_images = map_images
        self._images = 0
        self._this_image: dict[str, list[int]] = {}
        self.layers: dict[str, NeuronStatistics] = {}

    @contextmanager
    def image(self) -> Iterator[None]:
        """Record what runs inside as one image."""
        self._this_image = {}
        with observe_neurons(self._model, self._record):
            yield
        for name, (fired, neurons) in self._this_image.items():
            self.layers[name].rates.append(fired / neurons)
        self._images += 1

    def _record(self, name: str, layer: HoyerSpike, potential: Tensor, spikes: Tensor) -> None:
        threshold = float(layer.threshold.detach().abs())
        levels = firing_levels(layer)
        z = potential.float() / threshold
        channels = channel_dimension(layer, spikes)
        if name not in self.layers:
            fired = torch.zeros(spikes.size(channels), dtype=torch.int64)
            self.layers[name] = NeuronStatistics(threshold, levels.cpu(), *_range(z), fired)
        found = self.layers[name]
        fired = spikes.ne(0).movedim(channels, 0).flatten(1).sum(1).cpu()
        found.count(fired, spikes.numel())
        image = self._this_image.setdefault(name, [0, 0])
        image[0] += int(fired.sum())
        image[1] += spikes.numel()
        if self._images in self._map_images and spikes.dim() == 4:
            found.maps.setdefault(self._images, spikes[0].float().mean(0).cpu())
        found.counts += torch.histc(z, BINS, found.low, found.high).double().cpu()
        found.below += int((z < found.low).sum())
        found.above += int((z > found.high).sum())
        level = levels.view(1, -1, *[1] * (z.dim() - 2))
        found.near += int(((z - level).abs() < NEAR).sum())


def channel_dimension(layer: HoyerSpike, x: Tensor) -> int:
    """Return the dimension of the channels in what a layer reads or sends.

    Args:
        layer: Neuron; where it has an extremum for each channel, these are its own, dimension 1.
        x: Otherwise features (N, C), tokens (N, L, C) of a transformer, or maps (N, C, H, W).
    """
    return 2 if x.dim() == 3 and layer.extremum != 'channel' else 1


def firing_levels(layer: HoyerSpike) -> Tensor:
    """Return the levels s * E at which a layer fires in evaluation, in the units of z.

    Args:
        layer: Neuron that has been trained.

    Returns:
        Shape (1,) or (C,); a channel that never had a positive potential fires at 1.
    """
    return layer.extremum_scale * layer.average_extremum().detach()


def choose_maps(
    layers: Collection[str], wanted: Collection[str] | None, number: int = 6
) -> list[str]:
    """Choose the layers whose spike maps are shown.

    Args:
        layers: Names of the layers that have maps, in order.
        wanted: Names or parts of names asked for; None for ``number`` layers spread over the depth.
        number: How many to take when none are asked for.

    Raises:
        ValueError: If a name asked for fits no layer.
    """
    layers = list(layers)
    if wanted is None:
        last = max(len(layers) - 1, 0)
        picked = {round(i * last / max(number - 1, 1)) for i in range(number)} if layers else set()
        return [layers[i] for i in sorted(picked)]
    for part in wanted:
        if not any(part in name for name in layers):
            raise ValueError(f'--maps {part}: fits no spiking layer; there are {", ".join(layers)}')
    return [name for name in layers if any(part in name for part in wanted)]


def _range(z: Tensor) -> tuple[float, float]:
    some = z.flatten()[:: max(1, z.numel() // 1_000_000)]  # quantile() takes 2**24 entries at most
    low, high = torch.quantile(some, torch.tensor([0.001, 0.999], device=z.device)).tolist()
    return min(low, -0.5), max(high, 1.5)
