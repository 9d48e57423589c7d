"""Finds out what each convolution of a model reads: the image, spikes, sums of spikes, real values."""

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


def find_readings(
    model: nn.Module, size: tuple[int, int] | None = None
) -> dict[nn.Module, Reading]:
    """Run a model once with every neuron firing, and look at what its convolutions read.

    Of a detector the backbone, neck and dense head run; convolutions that none of them reaches read real
    values as far as one can tell.

    Args:
        model: Detector, classifier or part of one, in evaluation mode; it stays as it is.
        size: Height and width of the image; by default what the anchors of the head ask for, or 128.

    Returns:
        Convolution: reading.
    """
    height, width = size or image_size(model)
    first = next(model.parameters())
    image = torch.rand(1, _in_channels(model), height, width, dtype=first.dtype)
    image = image.to(first.device)
    found: dict[nn.Module, Reading] = {}

    def look(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if x is image:
            reading = Reading('image', 255)
        elif x.min() >= 0 and x.max() >= 1 and torch.equal(x, x.round()):
            reading = Reading('spikes', int(x.max()))
        else:
            reading = REAL
        other = found.setdefault(conv, reading)
        if other.kind != reading.kind:
            found[conv] = REAL
        elif reading.most > other.most:
            found[conv] = reading

    handles = [
        m.register_forward_pre_hook(look) for m in model.modules() if isinstance(m, nn.Conv2d)
    ]
    handles += [
        m.register_forward_hook(lambda m, i, spikes: torch.ones_like(spikes))
        for m in model.modules()
        if isinstance(m, HoyerSpike)
    ]
    try:
        with torch.no_grad(), plain_kernels(model):
            run_network(model, image)
    finally:
        for handle in handles:
            handle.remove()
    return found


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
    """Return the height and width that the anchors of a detector's head ask for, 128 without any."""
    generator = getattr(getattr(model, 'bbox_head', None), 'prior_generator', None)
    side = getattr(generator, 'input_size', None) or DEFAULT_SIDE
    return (side, side) if isinstance(side, int) else tuple(side)


def _in_channels(model: nn.Module) -> int:
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels
