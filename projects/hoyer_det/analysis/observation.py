"""Where the analysis meets the neurons of a network: everything that observes them goes through here."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from ..kernels import plain_kernels
from ..spiking import HoyerSpike, spiking_layers


@contextmanager
def observe_neurons(
    model: nn.Module, callback: Callable[[str, HoyerSpike, Tensor, Tensor], None]
) -> Iterator[None]:
    """Call a function after each application of a neuron while the block runs.

    Args:
        model: Network that holds ``HoyerSpike`` layers.
        callback: Takes the name of the layer, the layer, its potentials and its spikes, both of shape
            (N, C, ...). Applications to empty tensors are left out.
    """
    with plain_kernels(model), ExitStack() as hooks:
        for name, layer in spiking_layers(model).items():

            def hook(
                module: HoyerSpike, inputs: tuple[Tensor], spikes: Tensor, name: str = name
            ) -> None:
                if spikes.numel():
                    callback(name, module, inputs[0].detach(), spikes.detach())

            hooks.enter_context(layer.register_forward_hook(hook))
        yield


@contextmanager
def change_potentials(
    model: nn.Module, change: Callable[[HoyerSpike, Tensor], Tensor]
) -> Iterator[None]:
    """Replace what every neuron receives while the block runs.

    Args:
        model: Network that holds ``HoyerSpike`` layers.
        change: Takes a layer and its potentials, returns the potentials that it gets instead.
    """

    def hook(module: HoyerSpike, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (change(module, inputs[0]),)

    with plain_kernels(model), ExitStack() as hooks:
        for layer in spiking_layers(model).values():
            hooks.enter_context(layer.register_forward_pre_hook(hook))
        yield
