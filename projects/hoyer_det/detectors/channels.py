"""Tells of a neck that does not fit its backbone before a forward pass ends in it."""

from torch import nn

from ..backbones import HoyerResNet, HoyerVGG


def check_channels(model: nn.Module) -> None:
    """Make sure that the neck of a detector takes the channels that a Hoyer backbone hands in.

    Args:
        model: Detector; without such a backbone, or a neck that knows its ``in_channels``, nothing is
            checked.

    Raises:
        ValueError: If they differ.
    """
    backbone = getattr(model, 'backbone', None)
    wanted = getattr(getattr(model, 'neck', None), 'in_channels', None)
    if not isinstance(backbone, HoyerVGG | HoyerResNet) or wanted is None:
        return
    given = list(backbone.out_channels)
    if isinstance(wanted, int):  # of a neck that takes the last level alone
        given, wanted = given[-1:], [wanted]
    if list(wanted) not in (given, given[::-1]):  # YOLOv3 counts from the coarsest
        raise ValueError(
            f'neck.in_channels={list(wanted)}: {type(backbone).__name__} hands in {given} channels; set '
            'these, or other out_indices or another width of the backbone'
        )
