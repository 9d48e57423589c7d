"""How often neurons fire: rates over images, dead and saturated channels, maps."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..spiking import spiking_layers


@dataclass
class LayerSpikes:
    """Spikes of one ``HoyerSpike`` layer.

    Attributes:
        name: Dotted name of the layer.
        rates: Share of neurons that fired, an entry for each image.
        fired: Spikes of each channel over all images, shape (C,), int64.
        neurons: Neurons of one channel over all images.
        spike_map: Share of the channels that fire at each place, (H, W), for the image that was asked
            for; None where it was not, or the layer has no maps.
    """

    name: str
    rates: list[float] = field(default_factory=list)
    fired: Tensor | None = None
    neurons: int = 0
    spike_map: Tensor | None = None

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.fired)

    @property
    def mean_rate(self) -> float:
        """Spike rate over all images."""
        return int(self.fired.sum()) / (self.neurons * self.channels)

    @property
    def spread(self) -> float:
        """Standard deviation of the images' rates (of these images, not an estimate from them)."""
        return float(torch.tensor(self.rates, dtype=torch.float64).std(unbiased=False))

    @property
    def dead(self) -> int:
        """Channels that never fired."""
        return int((self.fired == 0).sum())

    @property
    def saturated(self) -> int:
        """Channels in which every neuron fired on every image."""
        return int((self.fired == self.neurons).sum())


class SpikeRecorder:
    """Listens to the neurons of a network; channels are dimension 1.

    Args:
        model: Network that holds ``HoyerSpike`` layers.
        map_image: Number of the image, from 0, whose spike maps are kept.

    Attributes:
        layers: What was seen, by layer, in the order of execution.
    """

    def __init__(self, model: nn.Module, map_image: int = 0) -> None:
        self._model = model
        self._map_image = map_image
        self._image = 0
        self._hooks = ExitStack()
        self._seen: dict[str, tuple[int, int]] = {}
        self.layers: dict[str, LayerSpikes] = {}

    def __enter__(self) -> 'SpikeRecorder':
        for name, layer in spiking_layers(self._model).items():
            self._hooks.callback(layer.register_forward_hook(self._listener(name)).remove)
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def end_image(self) -> None:
        """Close the books of one image."""
        for name, (fired, neurons) in self._seen.items():
            self.layers[name].rates.append(fired / neurons)
        self._seen = {}
        self._image += 1

    def _listener(self, name: str) -> Callable:
        def listen(module: nn.Module, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
            if not spikes.numel():
                return
            layer = self.layers.setdefault(name, LayerSpikes(name))
            others = [dim for dim in range(spikes.dim()) if dim != 1]
            fired = spikes.detach().ne(0).sum(others).cpu()
            layer.fired = fired if layer.fired is None else layer.fired + fired
            layer.neurons += spikes.numel() // len(fired)
            before = self._seen.get(name, (0, 0))
            self._seen[name] = (before[0] + int(fired.sum()), before[1] + spikes.numel())
            if self._image == self._map_image and spikes.dim() == 4 and layer.spike_map is None:
                layer.spike_map = spikes[0].float().mean(0).cpu()

        return listen


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
