"""Finds out what each convolution of a model reads: the image, spikes, sums of spikes, real values."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..kernels import plain_kernels
from ..spiking import HoyerSpike

DEFAULT_SIDE = 128


class Reading(NamedTuple):
    """What a convolution reads.

    Attributes:
        kind: ``'image'``; ``'spikes'``, which are integers from 0 to ``most``; or ``'real'``.
        most: Largest value, 1 for spikes, more for sums of spikes, as in the residual blocks of DarkNet.
    """

    kind: Literal['image', 'spikes', 'real']
    most: int = 1


REAL = Reading('real')
IMAGE = Reading('image', 255)


def find_readings(
    model: nn.Module, size: tuple[int, int] | None = None
) -> dict[nn.Module, Reading]:
    """Run a model with every neuron firing, then with random spikes, and look at what convolutions read.

    The first run gives the largest sums of spikes. The second tells sums from means, which are whole as
    well where every neuron fires: behind average pooling or bilinear upsampling. A convolution that pads
    its input by something else than zeros counts as reading real values, as the padding is an operation
    of its own in an exported graph.

    Of a detector the backbone, neck and dense head run; convolutions that none of them reaches read real
    values as far as one can tell.

    Args:
        model: Detector, classifier or part of one, in evaluation mode, whose parameters need no gradient; it
            stays as it is.
        size: Height and width of the image; by default that of :func:`image_size`.

    Returns:
        Convolution: reading; and ``model`` itself with ``'image'`` if anything besides the convolutions of
        that reading reads the image.
    """
    height, width = size or image_size(model)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, _in_channels(model), height, width, generator=draw)
    # By the gradient what comes from the image is recognised; outputs of convolutions are cut off from it.
    image = pixels.to(next(model.parameters())).requires_grad_().clone()
    found: dict[nn.Module, Reading] = {}

    def look(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if x is image and conv.padding_mode == 'zeros':
            reading = IMAGE
        else:
            watch(x)
            sums = conv.padding_mode == 'zeros' and _whole(x) and x.min() >= 0 and x.max() >= 1
            reading = Reading('spikes', int(x.max())) if sums else REAL
        other = found.setdefault(conv, reading)
        if other.kind != reading.kind:
            found[conv] = REAL
        elif reading.most > other.most:
            found[conv] = reading

    def watch(x: Tensor) -> None:
        if x.requires_grad:
            found[model] = IMAGE

    def confirm(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x, reading = inputs[0], found.get(conv, REAL)
        sums = _whole(x) and x.min() >= 0 and x.max() <= reading.most
        if reading.kind == 'spikes' and not sums:
            found[conv] = REAL

    def every(potential: Tensor) -> Tensor:
        watch(potential)
        return torch.ones_like(potential)

    def some(potential: Tensor) -> Tensor:
        return torch.randint(0, 2, potential.shape, generator=draw).to(potential)

    with torch.enable_grad():
        for output in _tensors(_run(model, image, look, every)):
            watch(output)
    with torch.no_grad():
        _run(model, image, confirm, some)
    return found


def _run(
    model: nn.Module,
    image: Tensor,
    look: Callable[[nn.Module, tuple[Tensor, ...]], None],
    fire: Callable[[Tensor], Tensor],
) -> object:
    """Run a model with other spikes, which are made of the potentials, and look at inputs."""
    with plain_kernels(model), ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                hooks.enter_context(module.register_forward_pre_hook(look))
                hooks.enter_context(module.register_forward_hook(lambda m, i, sums: sums.detach()))
            elif isinstance(module, HoyerSpike):
                hooks.enter_context(
                    module.register_forward_hook(lambda m, inputs, s: fire(inputs[0]))
                )
        return run_network(model, image)


def _whole(x: Tensor) -> bool:
    return torch.equal(x, x.round())


def _tensors(outputs: object) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples, lists and dictionaries."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, dict | list | tuple):
        for part in outputs.values() if isinstance(outputs, dict) else outputs:
            yield from _tensors(part)


def run_network(model: nn.Module, image: Tensor) -> object:
    """Run backbone, neck and dense head of a detector, or the whole of another model."""
    if not hasattr(model, 'extract_feat'):
        return model(image)
    features = model.extract_feat(image)
    for name in ('bbox_head', 'rpn_head'):
        head = getattr(model, name, None)
        if isinstance(head, nn.Module):
            return head(features)
    return features


def image_size(model: nn.Module) -> tuple[int, int]:
    """Return the height and width that the anchors of a detector's head ask for.

    Without any 128, or more for a head whose coarsest map would be a single position, over which a group
    norm cannot normalise.
    """
    generator = getattr(getattr(model, 'bbox_head', None), 'prior_generator', None)
    side = getattr(generator, 'input_size', None)
    if side is None:
        side = max(
            [DEFAULT_SIDE, *(2 * max(stride) for stride in getattr(generator, 'strides', ()))]
        )
    return (side, side) if isinstance(side, int) else tuple(side)


def _in_channels(model: nn.Module) -> int:
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels
