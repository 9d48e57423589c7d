"""What a training loop asks of the neurons of a whole network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from .neuron import HoyerSpike


def spiking_layers(model: nn.Module) -> dict[str, HoyerSpike]:
    """Return every ``HoyerSpike`` of ``model`` by its dotted name, in the order of registration."""
    return {name: m for name, m in model.named_modules() if isinstance(m, HoyerSpike)}


def untrained_layers(model: nn.Module) -> list[str]:
    """Return the names of the layers that no training batch ever gave a firing level.

    They evaluate with an extremum of 1, which is not what a trained network should do. Waits for the
    device once for each layer.
    """
    return [name for name, m in spiking_layers(model).items() if not (m.running_weight > 0).any()]


def untrained_warning(model: nn.Module) -> str:
    """Return what to say of layers without a firing level from training, empty where there are none."""
    untrained = untrained_layers(model)
    if not untrained:
        return ''
    return (
        f'{len(untrained)} HoyerSpike layers have no firing level from training and fire at '
        f'their clip threshold: {", ".join(untrained[:3])}'
        + (', ...' if len(untrained) > 3 else '')
        + '; train first, or load a checkpoint of a spiking network'
    )


@contextmanager
def record_spikes(
    model: nn.Module, observer: Callable[[str, HoyerSpike, Tensor, Tensor | None], None]
) -> Iterator[None]:
    """Call an observer for each application of each ``HoyerSpike`` while the block runs.

    What is computed, and by which implementation, does not depend on it. Blocks may be nested.

    Args:
        model: Network that holds ``HoyerSpike`` layers.
        observer: Called with the name of the layer, the layer, its spikes (N, C, ...) and, in training
            mode, the Hoyer square of its clipped potentials (a scalar with its gradient), else None.

    Example::

        with record_spikes(net, lambda name, layer, spikes, square: print(name, spikes.mean())):
            net(images)
    """
    added = []
    for name, layer in spiking_layers(model).items():

        def observe(layer: HoyerSpike, *values: Tensor | None, name: str = name) -> None:
            observer(name, layer, *values)

        layer._observers.append(observe)
        added.append((layer, observe))
    try:
        yield
    finally:
        for layer, observe in added:
            layer._observers.remove(observe)


@contextmanager
def record_hoyer_squares(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the Hoyer square of every layer in training mode while the block runs.

    A layer that is applied several times (a head shared by feature levels) counts each time. The
    collected tensors carry the gradient to potentials and thresholds; nothing stays in the model
    after the block. Blocks may be nested: each collects for itself.

    Args:
        model: Network that holds ``HoyerSpike`` layers.

    Yields:
        A list that grows by one scalar for each layer application. Example::

            with record_hoyer_squares(net) as squares:
                output = net(images)
            loss = task_loss(output) + 1e-8 * sum(squares)

    Raises:
        RuntimeError: From a trainable layer that runs with gradients off inside the block.
    """
    squares: list[Tensor] = []

    def collect(name: str, layer: HoyerSpike, spikes: Tensor, square: Tensor | None) -> None:
        if square is None:
            return
        if layer.threshold.requires_grad and not square.requires_grad:
            raise RuntimeError(
                'HoyerSpike: its Hoyer square is wanted while gradients are off, as they are inside '
                'reentrant gradient checkpointing. Set with_cp=False in that module; the Hoyer '
                'backbones checkpoint without reentry'
            )
        squares.append(square)

    with record_spikes(model, collect):
        yield squares


def check_potentials(model: nn.Module) -> None:
    """Raise if a layer saw a NaN or an inf in training since the last call; forget what was seen.

    Waits once for the device, so call it at log intervals rather than at every step. In a distributed
    run all processes must call it, and all raise if one saw something.

    Raises:
        FloatingPointError: Names the layer that saw them most often, and of several such layers the
            first. Where all layers saw them equally often, the loss or the optimizer's step is the
            more likely origin, and the message says so.
    """
    layers = spiking_layers(model)
    if not layers:
        return
    zero = next(iter(layers.values())).threshold.detach().new_zeros(())
    counts = torch.stack([zero if m._nonfinite is None else m._nonfinite for m in layers.values()])
    for layer in layers.values():
        layer._nonfinite = None
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(counts)
    counts = counts.cpu()
    if not counts.any():
        return
    # An optimizer step carries a NaN into layers before its origin, but a batch later.
    name = list(layers)[int(counts.argmax())]
    everywhere = len(layers) > 1 and bool((counts == counts[0]).all())
    raise FloatingPointError(
        f'{name} (HoyerSpike) received NaN or inf as membrane potential; '
        f'{int((counts > 0).sum())} of {len(layers)} layers did'
        + (', equally often: it may have begun in the loss or the optimizer' if everywhere else '')
        + '. Lower the learning rate, clip gradients, or train in float32 or bfloat16 instead of '
        'float16'
    )
