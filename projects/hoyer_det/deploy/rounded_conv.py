"""A convolution that is trained with the rounded weights it will be deployed with."""

from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .rounding import BITS, integer_steps, largest_weight

IMAGE_CHANNELS = 3


@MODELS.register_module()
class RoundedConv2d(nn.Conv2d):
    r"""``Conv2d`` whose weights are rounded in every forward pass, to be fine-tuned and then folded.

    The weight :math:`w` stays a float32 parameter of the same name and shape, so checkpoints of the plain
    convolution fit. What is convolved is :math:`s\,k`, with the integers :math:`k` and the step :math:`s`
    of each output channel that :func:`hoyer_det.deploy.fold` would choose for :math:`w`; and folding
    stores just these :math:`k`. The gradient passes the rounding unchanged (straight-through estimator,
    Bengio et al., arXiv 1308.3432).

    A convolution of at most 3 input channels reads the image and is not rounded here: folding gives it
    8 bits in any case. For every ``conv_cfg``::

        backbone=dict(conv_cfg=dict(type='RoundedConv2d', bits=4))

    Args:
        *args: As for ``nn.Conv2d``.
        bits: Of each weight, 2 to 8.
        **kwargs: As for ``nn.Conv2d``.

    Raises:
        ValueError: If the number of bits is out of range.

    Example:
        >>> conv = RoundedConv2d(64, 128, 3, padding=1, bits=4)
        >>> integers, step = conv.integers()
        >>> int(integers.abs().max())
        7
    """

    def __init__(self, *args: Any, bits: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if bits not in BITS:
            raise ValueError(f'RoundedConv2d: bits={bits}; possible are {BITS[0]} to {BITS[-1]}')
        self.bits = bits

    @property
    def rounds(self) -> bool:
        """Whether weights are rounded, that is whether it does not read the image."""
        return self.in_channels > IMAGE_CHANNELS

    @torch.no_grad()
    def integers(self) -> tuple[Tensor, Tensor]:
        """Return the integer weights, float64 (M, C, kh, kw), and the step of each channel (M,)."""
        return integer_steps(self.weight.double(), largest_weight(self.bits))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve images or spikes (N, C, H, W)."""
        if not self.rounds:
            return super().forward(x)
        integers, step = self.integers()
        rounded = (integers * step.view(-1, 1, 1, 1)).to(self.weight.dtype)
        # The difference is 0 exactly; through it the gradient reaches the weight.
        return self._conv_forward(x, rounded + (self.weight - self.weight.detach()), self.bias)

    def extra_repr(self) -> str:
        """Describe the convolution."""
        return f'{super().extra_repr()}, bits={self.bits}'


def use_plain_convs(model: nn.Module, bits: int | None = None) -> None:
    """Put a plain convolution of the rounded weights in the place of each :class:`RoundedConv2d`.

    Where weights were rounded, it has the attribute ``trained``: bits, and the largest integer of each
    output channel, float64 (M,), by which the integers are found again whatever a norm multiplies the
    weights with.

    Args:
        model: Changed in place.
        bits: Bits that were asked for, if any.

    Raises:
        ValueError: If a convolution was trained with others.
    """
    made: dict[nn.Module, nn.Conv2d] = {}  # a convolution that is shared stays so
    for path, parent in model.named_modules():
        for name, conv in parent._modules.items():
            if not isinstance(conv, RoundedConv2d):
                continue
            if conv.rounds and bits not in (None, conv.bits):
                raise ValueError(
                    f'{path}.{name}: was trained with weights of {conv.bits} bits, not {bits}; leave '
                    'the number out'
                )
            if conv not in made:
                made[conv] = _plain_conv(conv)
            parent._modules[name] = made[conv]


def _plain_conv(conv: RoundedConv2d) -> nn.Conv2d:
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
    )
    plain.to(conv.weight).load_state_dict(conv.state_dict())
    plain.requires_grad_(False).train(conv.training)
    if conv.rounds:
        integers, step = conv.integers()
        plain.weight.copy_(integers * step.view(-1, 1, 1, 1))
        plain.trained = conv.bits, integers.flatten(1).abs().amax(1)
    return plain
