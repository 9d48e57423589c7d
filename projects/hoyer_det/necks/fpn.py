"""The feature pyramid network whose sums are potentials and whose outputs are spikes."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from torch import nn

from ..backbones.blocks import ACT_CFG, NORM_CFG, build_activation, spiking_conv_cfg, spread_biases


@MODELS.register_module()
class HoyerFPN(FPN):
    """MMDetection's FPN with neurons: every convolution reads spikes, every level handed out is spikes.

    Lateral convolution -> norm gives a potential; the coarser level's potential is added to it. The sum
    goes through a neuron, then 3x3 convolution -> norm -> neuron. Extra levels are convolutions ->
    norm -> neuron of spikes as well, or subsampled spikes. The network is the feature pyramid of
    Lin et al. (arXiv 1612.03144).

    The arguments are those of MMDetection's ``FPN``. ``relu_before_extra_convs`` changes nothing, as
    spikes are not negative.

    Args:
        in_channels: Channels of the levels handed in.
        out_channels: Channels of all levels handed out.
        num_outs: Number of levels handed out.
        start_level: First of the levels handed in that is used.
        end_level: Last of them, -1 for the last there is.
        add_extra_convs: What the first extra level is convolved from: ``'on_input'``,
            ``'on_lateral'``, ``'on_output'``, True for the first of these; False to subsample the
            coarsest output instead.
        relu_before_extra_convs: Accepted so that MMDetection's configs fit.
        no_norm_on_lateral: Whether lateral convolutions have a bias instead of a norm.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the norms, batch norm by default.
        act_cfg: Config of the activations; ``dict(type='ReLU')`` gives the twin.
        upsample_cfg: Keywords of the interpolation of potentials.
        bias_spread: Half width of the interval of the norms' first biases, see
            :class:`hoyer_det.backbones.blocks.SpikingConvBlock`.
        init_cfg: Initialisation; Xavier for convolutions by default.

    Raises:
        ValueError: If levels or ``add_extra_convs`` do not fit.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        end_level: int = -1,
        add_extra_convs: bool | Literal['on_input', 'on_lateral', 'on_output'] = False,
        relu_before_extra_convs: bool = False,
        no_norm_on_lateral: bool = False,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = NORM_CFG,
        act_cfg: dict[str, Any] = ACT_CFG,
        upsample_cfg: dict[str, Any] = dict(mode='nearest'),  # noqa: B006  FPN copies it
        bias_spread: float = 0.0,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = dict(type='Xavier', layer='Conv2d', distribution='uniform')
        _check_levels(len(in_channels), num_outs, start_level, end_level, add_extra_convs)
        super().__init__(
            list(in_channels),
            out_channels,
            num_outs,
            start_level=start_level,
            end_level=end_level,
            add_extra_convs=add_extra_convs,
            relu_before_extra_convs=relu_before_extra_convs,
            no_norm_on_lateral=no_norm_on_lateral,
            conv_cfg=spiking_conv_cfg(conv_cfg, act_cfg),
            norm_cfg=norm_cfg,
            act_cfg=None,
            upsample_cfg=upsample_cfg,
            init_cfg=init_cfg,
        )
        levels = len(self.lateral_convs)
        for index, conv in enumerate(self.fpn_convs):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            first_extra = index == levels and self.add_extra_convs == 'on_lateral'
            if index < levels or first_extra:  # reads a potential
                layers['spike'] = build_activation(act_cfg, out_channels)
            layers['conv'] = conv
            layers['act'] = build_activation(act_cfg, out_channels)
            self.fpn_convs[index] = nn.Sequential(layers)
        spread_biases(self, bias_spread)


def _check_levels(
    num_ins: int, num_outs: int, start_level: int, end_level: int, add_extra_convs: bool | str
) -> None:
    """Say in words what MMDetection's FPN asserts."""
    last = num_ins - 1 if end_level == -1 else end_level
    if not 0 <= start_level <= last < num_ins:
        raise ValueError(
            f'HoyerFPN: start_level={start_level} and end_level={end_level} must name levels, in this '
            f'order, of the {num_ins} in in_channels'
        )
    levels = last - start_level + 1
    if num_outs < levels or (num_outs > levels and last < num_ins - 1):
        many = 'at least ' if last == num_ins - 1 else ''
        raise ValueError(
            f'HoyerFPN: num_outs must be {many}{levels}, the number of levels from '
            f'start_level={start_level} to end_level={end_level}, got {num_outs}'
        )
    choices = (False, True, 'on_input', 'on_lateral', 'on_output')
    if add_extra_convs not in choices:
        raise ValueError(
            f'HoyerFPN: add_extra_convs must be one of {choices}, got {add_extra_convs!r}'
        )
