"""Histograms of the normalised membrane potential, with the levels at which neurons fire."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..spiking import HoyerSpike, spiking_layers

BINS = 120
NEAR = 0.1


@dataclass
class LayerPotentials:
    """Potentials z = u / |v| of one ``HoyerSpike`` layer.

    Attributes:
        name: Dotted name of the layer.
        threshold: Clip threshold |v|, in the units of u.
        levels: Firing levels s * E in the units of z, one or one a channel.
        low: Lower edge of the histogram.
        high: Upper edge.
        counts: Potentials in each of the bins, float64.
        below: Potentials under the lower edge.
        above: Potentials over the upper edge.
        near: Potentials closer to their firing level than 0.1.
        total: All potentials.
    """

    name: str
    threshold: float
    levels: Tensor
    low: float
    high: float
    counts: Tensor
    below: int = 0
    above: int = 0
    near: int = 0
    total: int = 0

    @property
    def near_share(self) -> float:
        """Share of the potentials closer to their firing level than 0.1."""
        return self.near / max(self.total, 1)


def firing_levels(layer: HoyerSpike) -> Tensor:
    """Return the levels s * E at which a layer fires in evaluation, in the units of z.

    Args:
        layer: Neuron that has been trained.

    Returns:
        Shape (1,) or (C,); a channel that never had a positive potential fires at 1.
    """
    weight = layer.running_weight
    average = layer.running_extremum / weight.masked_fill(weight == 0, 1.0)
    return layer.extremum_scale * torch.where(weight > 0, average, 1.0).detach()


class PotentialRecorder:
    """Listens to what the neurons of a network receive.

    The range of a layer's histogram covers [-0.5, 1.5] and all but two in a thousand of the potentials
    of its first image; what falls outside later is counted as such.

    Args:
        model: Network that holds ``HoyerSpike`` layers.

    Attributes:
        layers: What was seen, by layer, in the order of execution.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._hooks = ExitStack()
        self.layers: dict[str, LayerPotentials] = {}

    def __enter__(self) -> 'PotentialRecorder':
        for name, layer in spiking_layers(self._model).items():
            self._hooks.callback(layer.register_forward_pre_hook(self._listener(name)).remove)
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def _listener(self, name: str) -> Callable:
        def listen(module: HoyerSpike, inputs: tuple[Tensor, ...]) -> None:
            if not inputs[0].numel():
                return
            clip = float(module.threshold.detach().abs())
            z = inputs[0].detach().float() / clip
            levels = firing_levels(module)
            if name not in self.layers:
                low, high = _range(z)
                counts = torch.zeros(BINS, dtype=torch.float64)
                self.layers[name] = LayerPotentials(name, clip, levels.cpu(), low, high, counts)
            layer = self.layers[name]
            layer.counts += torch.histc(z, BINS, layer.low, layer.high).double().cpu()
            layer.below += int((z < layer.low).sum())
            layer.above += int((z > layer.high).sum())
            shape = (1, -1) + (1,) * (z.dim() - 2)
            layer.near += int(((z - levels.view(shape)).abs() < NEAR).sum())
            layer.total += z.numel()

        return listen


def _range(z: Tensor) -> tuple[float, float]:
    some = z.flatten()[:: max(1, z.numel() // 1_000_000)]
    low, high = torch.quantile(
        some[:2_000_000], torch.tensor([0.001, 0.999], device=z.device)
    ).tolist()
    return min(low, -0.5), max(high, 1.5)
