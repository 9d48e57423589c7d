"""Folds batch norms into the convolutions before them, also across a max pooling."""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from mmcv.cnn import Conv2d, ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..backbones.blocks import SpikingSequential
from ..backbones.resnet import SpikingBasicBlock, SpikingBottleneck
from ..backbones.shortcut import ShortcutConvBlock
from ..kernels import SpikeConv2d

# Convolutions whose weight is used as it stands; weight standardisation, for one, would undo a scale.
_CONVS = (nn.Conv2d, Conv2d, SpikeConv2d)
_SEQUENTIAL = (nn.Sequential.forward, SpikingSequential.forward, ShortcutConvBlock.forward)


class _Place(NamedTuple):
    """A convolution and the norm that reads its output, by their names in ``owner``."""

    owner: nn.Module
    conv: str
    norm: str
    pooled: bool


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
    model = copy.deepcopy(model).eval()
    for place in list(_places(model)):
        conv = copy.deepcopy(getattr(place.owner, place.conv))
        rest = _fold(conv, getattr(place.owner, place.norm), place.pooled)
        setattr(place.owner, place.conv, conv)
        setattr(place.owner, place.norm, rest)
    return model


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
    for owner, conv_name, norm_name, pooled in _places(model):
        conv, norm = getattr(owner, conv_name), getattr(owner, norm_name)
        other = shared.setdefault(conv, norm) is not norm
        if pooled or other:
            reason = (
                'several norms share it'
                if other
                else 'a max pooling stands between it and its norm'
            )
            raise ValueError(
                f'mmcv.cnn.fuse_conv_bn: {names[conv]}: {reason}; fusing would change what the model '
                'computes. Use hoyer_det.deploy.fold_norms(model)'
            )


def _places(model: nn.Module) -> Iterator[_Place]:
    """Yield every convolution whose output a batch norm reads, directly or behind a max pooling."""
    for module in model.modules():
        if isinstance(module, ConvModule):
            pairs = _in_conv_module(module)
        elif isinstance(module, nn.Sequential) and type(module).forward in _SEQUENTIAL:
            pairs = _in_sequence(module)
        elif isinstance(module, SpikingBasicBlock):
            pairs = [('conv', 'norm', False)]
        elif isinstance(module, SpikingBottleneck):
            pairs = [('conv1', 'norm2', False), ('conv2', 'norm3', False)]
        else:
            continue
        for conv, norm, pooled in pairs:
            if _fits(getattr(module, conv), getattr(module, norm)):
                yield _Place(module, conv, norm, pooled)


def _in_sequence(module: nn.Sequential) -> list[tuple[str, str, bool]]:
    layers = [(name, layer) for name, layer in module.named_children()]
    found = []
    for index, (name, layer) in enumerate(layers):
        behind = layers[index + 1 : index + 3]
        pooled = len(behind) == 2 and isinstance(behind[0][1], nn.MaxPool2d)
        if isinstance(layer, nn.Conv2d) and behind:
            found.append((name, behind[pooled][0], pooled))
    return found


def _in_conv_module(module: ConvModule) -> list[tuple[str, str, bool]]:
    follows = module.order.index('norm') == 1 + module.order.index('conv')
    if not module.with_norm or not follows or module.efficient_conv_bn_eval_forward is not None:
        return []
    return [('conv', module.norm_name, False)]


def _fits(conv: nn.Module, norm: nn.Module) -> bool:
    plain = type(conv) in _CONVS and 'weight' in conv._parameters  # no spectral norm or pruning
    return plain and isinstance(norm, _BatchNorm) and norm.running_mean is not None


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: _BatchNorm, pooled: bool) -> nn.Module:
    """Fold a norm into a convolution, in place; return what has to stay behind."""
    # In float64: this is done once, and each rounding here would be one more in every output.
    mean, scale = norm.running_mean.double(), (norm.running_var.double() + norm.eps).rsqrt()
    shift = torch.zeros_like(mean)
    if norm.affine:
        scale, shift = scale * norm.weight.double(), norm.bias.double()
    shift = shift - scale * mean
    if conv.bias is not None:
        shift = shift + scale * conv.bias.double()
    sign = torch.ones_like(scale).copysign(scale) if pooled else torch.ones_like(scale)
    conv.weight.copy_(conv.weight.double() * (sign * scale).view(-1, 1, 1, 1))
    conv.bias = nn.Parameter((sign * shift).to(conv.weight.dtype))
    return SignFlip(sign.to(conv.weight.dtype)) if bool((sign < 0).any()) else nn.Identity()
