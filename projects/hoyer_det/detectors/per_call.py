"""A neuron for each application of an activation that runs several times in a forward pass."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..spiking import HoyerSpike


class SpikePerCall(nn.ModuleList):
    """Neurons that stand in for one activation which runs several times in a module's forward.

    A residual block of MMDetection calls a single ``self.relu`` behind each of its convolutions, and
    a dense head runs its convolutions on one feature level after the other. A neuron has a threshold
    and a running extremum of its own, which would be an average over unlike potentials, so each
    application needs its own neuron. The first one goes to the first neuron, and so on; each forward
    of ``frame`` begins anew, and checks at its end that no neuron was left out.

    Args:
        neurons: One neuron for each application, in their order.
        frame: Module whose forward applies the activation that often.
        name: Name of the activation for messages: ``'Bottleneck.relu'``.

    Raises:
        RuntimeError: If a forward of ``frame`` applies the activation more or less often.
    """

    def __init__(self, neurons: Sequence[HoyerSpike], frame: nn.Module, name: str) -> None:
        super().__init__(neurons)
        self.name = name
        self._calls = 0
        # Bound methods: a copy of the frame (EMAHook makes one) calls those of its own copy.
        frame.register_forward_pre_hook(self._begin)
        frame.register_forward_hook(self._end)

    def forward(self, potential: Tensor) -> Tensor:
        """Turn membrane potentials into spikes by the neuron whose turn it is."""
        # Beginning anew by itself: mode='tensor' of MMDetection passes by the hooks of its heads.
        neuron = self[self._calls % len(self)]
        self._calls += 1
        return neuron(potential)

    def _begin(self, frame: nn.Module, args: tuple) -> None:
        self._calls = 0

    def _end(self, frame: nn.Module, args: tuple, output: Any) -> None:
        if self._calls != len(self):
            raise RuntimeError(
                f'SpikePerCall: {self.name} ran {self._calls} times in a forward of '
                f'{type(frame).__name__}, not {len(self)} times as when it was converted; its neurons '
                'would be mixed up. Feature levels and branches must stay what they were'
            )

    def extra_repr(self) -> str:
        """Describe what the neurons stand in for."""
        return self.name
