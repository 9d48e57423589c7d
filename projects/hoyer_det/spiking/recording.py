"""What a training loop asks of the neurons of a whole network."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .neuron import HoyerSpike


def spiking_layers(model: nn.Module) -> dict[str, HoyerSpike]:
    """Return every ``HoyerSpike`` of ``model`` by its dotted name, in the order of registration."""
    return {name: m for name, m in model.named_modules() if isinstance(m, HoyerSpike)}


@contextmanager
def record_hoyer_squares(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the Hoyer square of every layer in training mode while the block runs.

    A layer that is applied several times (a head shared by feature levels) counts each time. The
    collected tensors carry the gradient to potentials and thresholds; nothing stays in the model
    after the block.

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
    layers = spiking_layers(model).values()
    for layer in layers:
        layer._square_log = squares
    try:
        yield squares
    finally:
        for layer in layers:
            layer._square_log = None


def check_potentials(model: nn.Module) -> None:
    """Raise if a layer saw a NaN or an inf in training since the last call; forget what was seen.

    Waits once for the device, so call it at log intervals rather than at every step.

    Raises:
        FloatingPointError: Names the layer that saw them most often, and of several such layers the
            first. Where all layers saw them equally often, the loss or the optimizer's step is the
            more likely origin, and the message says so.
    """
    layers = spiking_layers(model)
    seen = {name: layer._nonfinite for name, layer in layers.items()}
    for layer in layers.values():
        layer._nonfinite = None
    seen = {name: count for name, count in seen.items() if count is not None}
    if not seen:
        return
    counts = torch.stack(list(seen.values())).cpu()
    if not counts.any():
        return
    # An optimizer step carries a NaN into layers before its origin, but a batch later.
    name = list(seen)[int(counts.argmax())]
    everywhere = len(layers) > 1 and bool((counts == counts[0]).all())
    raise FloatingPointError(
        f'{name} (HoyerSpike) received NaN or inf as membrane potential; '
        f'{int((counts > 0).sum())} of {len(layers)} layers did'
        + (', equally often: it may have begun in the loss or the optimizer' if everywhere else '')
        + '. Lower the learning rate, clip gradients, or train in float32 or bfloat16 instead of '
        'float16'
    )
