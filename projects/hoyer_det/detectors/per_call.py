"""A neuron for each place at which a block calls its one activation."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..spiking import HoyerSpike


class SpikePerCall(nn.ModuleList):
    """Neurons that stand in for one activation which its parent calls at several places.

    A residual block of MMDetection calls a single ``self.relu`` behind each of its convolutions. A
    neuron has a threshold, a running extremum and perhaps a number of channels of its own, so each
    place needs its own. The first call of a forward pass of the parent goes to the first neuron, and
    so on; the parent's hooks begin anew and check the number of calls, so that no call is ever
    answered by another place's neuron unnoticed.

    Args:
        neurons: One neuron a call, in the order of the calls.
        parent: Module that calls them, for its hooks.
        name: What the parent calls, for messages: ``'Bottleneck.relu'``.
        repeated: Whether the parent runs through the calls several times in a forward pass, as for
            each feature level.

    Raises:
        RuntimeError: If the parent calls more or less often than expected.
    """

    def __init__(
        self, neurons: Sequence[HoyerSpike], parent: nn.Module, name: str, repeated: bool = False
    ) -> None:
        super().__init__(neurons)
        self.name = name
        self.repeated = repeated
        self._calls = 0
        # Bound methods: a copy of the parent (EMAHook makes one) calls those of its own copy.
        parent.register_forward_pre_hook(self._begin)
        parent.register_forward_hook(self._end)

    def forward(self, potential: Tensor) -> Tensor:
        """Turn membrane potentials into spikes by the neuron whose turn it is."""
        if self._calls >= len(self) and not self.repeated:
            raise RuntimeError(
                f'SpikePerCall: {self.name} was called more often than the {len(self)} times that '
                'the source of forward shows. Part of the block runs a second time (gradient '
                'checkpointing: turn it off), or by another way than its forward'
            )
        neuron = self[self._calls % len(self)]
        self._calls += 1
        return neuron(potential)

    def _begin(self, parent: nn.Module, args: tuple) -> None:
        self._calls = 0

    def _end(self, parent: nn.Module, args: tuple, output: Any) -> None:
        if self._calls % len(self) or not (self._calls or self.repeated):
            raise RuntimeError(
                f'SpikePerCall: {self.name} was called {self._calls} times in a forward pass, not '
                f'{len(self)} times as the source of forward shows; its neurons would be mixed up'
            )

    def extra_repr(self) -> str:
        """Describe what the neurons stand in for."""
        return f'{self.name}, repeated={self.repeated}'
