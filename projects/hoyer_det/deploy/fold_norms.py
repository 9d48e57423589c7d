"""Folds batch norms into the convolutions before them, also across a max pooling."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .places import Place, find_places
from .rounded_conv import use_plain_convs


class SignFlip(nn.Module):
    """Multiplies each channel of (N, C, H, W) by 1 or -1.

    Max pooling and a norm of negative slope do not commute, so :func:`fold_norms` leaves this much of a
    norm behind the pooling.

    Args:
        sign: 1 or -1 for each channel, (C,).
    """

    def __init__(self, sign: Tensor) -> None:
        super().__init__()
        self.register_buffer('sign', sign)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with the signs applied."""
        return x * self.sign.view(1, -1, 1, 1)


def fold_norms(model: nn.Module) -> nn.Module:
    r"""Return a copy in evaluation mode whose batch norms are folded into the convolutions before them.

    With :math:`a = \gamma / \sqrt{\sigma^2 + \epsilon}`, convolution -> norm becomes one convolution
    with the weight :math:`a W` and the bias :math:`\beta + a (b - \mu)`. Across a max pooling that holds
    for :math:`a \ge 0` alone; a channel with :math:`a < 0` gets the negatives of both, and the sign is
    turned behind the pooling (:class:`SignFlip`). The outputs differ by rounding.

    Folded are the norms behind the convolutions of ``HoyerVGG``, ``HoyerResNet``, the necks and heads of
    this package and their ReLU twins, and those of every ``ConvModule`` in the order convolution, norm,
    activation. Left alone are norms without a convolution before them (in front of a neuron of a
    ``HoyerResNet``, for example), norms other than batch norm, and blocks of other packages that call
    their layers in an order of their own. A convolution that several norms share is copied for each.

    Args:
        model: Detector, classifier or part of one.

    Example:
        >>> from hoyer_det.backbones import HoyerVGG
        >>> folded = fold_norms(HoyerVGG(11))
        >>> [type(layer).__name__ for layer in folded.stages[1][0]]
        ['SpikeConv2d', 'LeanMaxPool2d', 'Identity', 'FastHoyerSpike']
    """
    model = copy.deepcopy(model)
    model.eval()  # returns None for Darknet
    use_plain_convs(model)
    for place in conv_norm_places(model):
        fold_norm(place)
    return model


def fold_norm(place: Place) -> None:
    """Fold the norm of a place into a copy of its convolution, in place."""
    conv = copy.deepcopy(place.conv.layer)
    place.norm.put(_fold(conv, place.norm.layer, place.pooled))
    place.conv.put(conv)


def check_conv_norm_fusion(model: nn.Module) -> None:
    """Make sure that ``mmcv.cnn.fuse_conv_bn`` would not change what a model computes.

    It takes the order of registration for the order of computation: it multiplies the scale of a norm
    into a convolution across a max pooling, which is wrong for channels of negative scale, and it
    multiplies those of several norms into one convolution that they share.

    Args:
        model: Model that is about to be fused.

    Raises:
        ValueError: Names the first convolution for which the result would be wrong.
    """
    names = {module: name for name, module in model.named_modules()}
    shared: dict[nn.Module, nn.Module] = {}
    for place in conv_norm_places(model):
        conv, norm = place.conv.layer, place.norm.layer
        other = shared.setdefault(conv, norm) is not norm
        if place.pooled or other:
            reason = (
                'several norms share it'
                if other
                else 'a max pooling stands between it and its norm'
            )
            raise ValueError(
                f'mmcv.cnn.fuse_conv_bn: {names[conv]}: {reason}; fusing would change what the model '
                'computes. Use hoyer_det.deploy.fold_norms(model)'
            )


def conv_norm_places(model: nn.Module) -> list[Place]:
    """Return the places where a batch norm reads a convolution, directly or behind a max pooling."""
    return [place for place in find_places(model) if place.conv and place.norm]


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: _BatchNorm, pooled: bool) -> nn.Module:
    """Fold a norm into a convolution, in place; return what has to stay behind."""
    # In float64: this is done once, and each rounding here would be one more in every output.
    scale, shift = norm_affine(norm)
    if conv.bias is not None:
        shift = shift + scale * conv.bias.double()
    sign = torch.ones_like(scale).copysign(scale) if pooled else torch.ones_like(scale)
    conv.weight.copy_(conv.weight.double() * (sign * scale).view(-1, 1, 1, 1))
    conv.bias = nn.Parameter((sign * shift).to(conv.weight.dtype))
    return SignFlip(sign.to(conv.weight.dtype)) if bool((sign < 0).any()) else nn.Identity()


def norm_affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a batch norm in evaluation, each float64 (C,)."""
    mean, scale = norm.running_mean.double(), (norm.running_var.double() + norm.eps).rsqrt()
    shift = torch.zeros_like(mean)
    if norm.affine:
        scale, shift = scale * norm.weight.double(), norm.bias.double()
    return scale, shift - scale * mean
