"""ResNet with Hoyer spikes: a real-valued residual stream that convolutions read as spikes."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..kernels import norm_spike
from .blocks import (
    ACT_CFG,
    NORM_CFG,
    SpikingSequential,
    build_activation,
    build_max_pool,
    check_indices,
    checkpointed,
    evaluate_norms,
    freeze,
    spiking_conv_cfg,
    spread_biases,
)

Config = dict[str, Any]


class SpikingBasicBlock(nn.Module):
    """Spike -> 3x3 convolution -> norm, with a shortcut around this single convolution.

    Two of them stand where a ResNet-18 or 34 has one block of two convolutions. Input and output are
    potentials (N, C, H, W).

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the convolution.
        dilation: Dilation of the convolution.
        style: Has no meaning for a block of one convolution.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the norms.
        act_cfg: Config of the activations.
    """

    expansion = 1
    ends_with_norm = True

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        dilation: int,
        style: str,
        conv_cfg: Config | None,
        norm_cfg: Config,
        act_cfg: Config,
    ) -> None:
        super().__init__()
        conv_cfg = spiking_conv_cfg(conv_cfg, act_cfg, reads_spikes=True)
        self.act = build_activation(act_cfg, in_channels)
        self.conv = build_conv_layer(
            conv_cfg,
            in_channels,
            channels,
            3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            bias=False,
        )
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.shortcut = _shortcut(in_channels, channels, stride, conv_cfg, norm_cfg, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both branches."""
        return self.norm(self.conv(self.act(x))) + self.shortcut(x)


class SpikingBottleneck(nn.Module):
    """(Norm -> spike -> convolution) three times, 1x1, 3x3 and 1x1, with a shortcut around all.

    Input and output are potentials (N, C, H, W).

    Args:
        in_channels: Channels of the input.
        channels: Channels of the 3x3 convolution; the output has four times as many.
        stride: Stride of the block.
        dilation: Dilation of the 3x3 convolution.
        style: ``'pytorch'``: the 3x3 convolution has the stride; ``'caffe'``: the first 1x1.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the norms.
        act_cfg: Config of the activations.
    """

    expansion = 4
    ends_with_norm = False

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        dilation: int,
        style: str,
        conv_cfg: Config | None,
        norm_cfg: Config,
        act_cfg: Config,
    ) -> None:
        super().__init__()
        conv_cfg = spiking_conv_cfg(conv_cfg, act_cfg, reads_spikes=True)
        first, second = (1, stride) if style == 'pytorch' else (stride, 1)
        out_channels = channels * self.expansion
        self.norm1 = build_norm_layer(norm_cfg, in_channels)[1]
        self.act1 = build_activation(act_cfg, in_channels)
        self.conv1 = build_conv_layer(conv_cfg, in_channels, channels, 1, stride=first, bias=False)
        self.norm2 = build_norm_layer(norm_cfg, channels)[1]
        self.act2 = build_activation(act_cfg, channels)
        self.conv2 = build_conv_layer(
            conv_cfg,
            channels,
            channels,
            3,
            stride=second,
            padding=dilation,
            dilation=dilation,
            bias=False,
        )
        self.norm3 = build_norm_layer(norm_cfg, channels)[1]
        self.act3 = build_activation(act_cfg, channels)
        self.conv3 = build_conv_layer(conv_cfg, channels, out_channels, 1, bias=False)
        self.shortcut = _shortcut(in_channels, out_channels, stride, conv_cfg, norm_cfg, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both branches."""
        out = self.conv1(norm_spike(self.norm1, self.act1, x))
        out = self.conv2(norm_spike(self.norm2, self.act2, out))
        out = self.conv3(norm_spike(self.norm3, self.act3, out))
        return out + self.shortcut(x)


def _shortcut(
    in_channels: int,
    out_channels: int,
    stride: int,
    conv_cfg: Config | None,
    norm_cfg: Config,
    act_cfg: Config,
) -> nn.Module:
    """Identity, or where the shape changes: max pooling -> norm -> spike -> 1x1 convolution."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stride > 1:
        # Rounded up, as the strided convolution beside it rounds.
        layers['pool'] = build_max_pool(act_cfg, stride, stride, ceil_mode=True)
    layers['norm'] = build_norm_layer(norm_cfg, in_channels)[1]
    layers['act'] = build_activation(act_cfg, in_channels)
    conv_cfg = spiking_conv_cfg(conv_cfg, act_cfg, reads_spikes=True)
    layers['conv'] = build_conv_layer(conv_cfg, in_channels, out_channels, 1, bias=False)
    return SpikingSequential(layers)


# Blocks of one convolution for 18 and 34, so twice the number of the usual blocks.
_ARCHITECTURES: dict[int, tuple[type[nn.Module], tuple[int, ...]]] = {
    18: (SpikingBasicBlock, (4, 4, 4, 4)),
    34: (SpikingBasicBlock, (6, 8, 12, 6)),
    50: (SpikingBottleneck, (3, 4, 6, 3)),
    101: (SpikingBottleneck, (3, 4, 23, 3)),
}


@MODELS.register_module()
class HoyerResNet(BaseModule):
    """ResNet whose convolutions, but for the stem, read spikes of a real-valued residual stream.

    Source of the structure: arXiv 2212.10170 and its authors' classifiers. Stem: 7x7 convolution of
    stride 2 -> max pooling -> norm. Depth 18 and 34: spike -> 3x3 convolution -> norm with a shortcut
    around every single convolution. Depth 50 and 101: (norm -> spike -> convolution) three times with
    one shortcut. A shortcut that changes the shape: max pooling -> norm -> spike -> 1x1 convolution.

    Channels and strides of the feature maps are those of MMDetection's ``ResNet`` of the same depth,
    and the arguments have its names, so ``backbone=dict(type='HoyerResNet')`` put over one of its
    configs fits every neck. Without weights to start from set ``init_cfg=None``, and
    with it ``frozen_stages=-1``, ``norm_eval=False`` and ``norm_cfg=dict(type='BN')`` where the config
    freezes what those weights would have filled; ``init_cfg=dict(type='FromANN', ...)`` and
    ``configs/pretrain`` are two ways to weights.

    Args:
        depth: 18, 34, 50 or 101.
        in_channels: Channels of the image.
        stem_channels: Channels of the stem; ``base_channels`` by default.
        base_channels: Channels of the first stage's 3x3 convolutions; doubled at every stage.
        num_stages: Number of stages, 1 to 4; only those up to the last of ``out_indices`` are built.
        strides: Stride of the first block of each stage.
        dilations: Dilation of each stage.
        out_indices: Stages whose features are returned, ascending. Name only those that are read: the
            norm and neuron at an output that no loss reaches have no gradient, which
            DistributedDataParallel does not accept.
        style: Where a bottleneck has its stride: ``'pytorch'`` in the 3x3 convolution, ``'caffe'`` in
            the first 1x1 convolution.
        deep_stem: Whether three 3x3 convolutions, with spikes between them, replace the 7x7 one.
        output: ``'spikes'``: a neuron stands at every output (behind a norm where the stream is not
            normalised, that is at depth 50 and 101). ``'potential'``: the real-valued stream itself.
        frozen_stages: -1: all is trained; 0: the stem is frozen (norm and neuron in evaluation mode,
            no gradients); n: the first n stages and their outputs as well. Frozen neurons need a
            checkpoint to fire by.
        norm_eval: Whether batch norm stays in evaluation mode during training.
        with_cp: Whether to trade time for memory by (non-reentrant) gradient checkpointing, one
            segment per block.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the norms.
        act_cfg: Config of the activations; ``dict(type='ReLU')`` gives the twin.
        bias_spread: Half width of the interval from which the norms' biases start, uniformly, when the
            activation is a ``HoyerSpike``; see :class:`SpikingConvBlock`.
        init_cfg: Initialisation; Kaiming for convolutions by default.

    Attributes:
        out_channels: Channels of each returned feature map.
        out_strides: Stride of each returned feature map.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> backbone = HoyerResNet(50)
        >>> [tuple(f.shape) for f in backbone(torch.rand(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: Literal['pytorch', 'caffe'] = 'pytorch',
        deep_stem: bool = False,
        output: Literal['spikes', 'potential'] = 'spikes',
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        conv_cfg: Config | None = None,
        norm_cfg: Config = NORM_CFG,
        act_cfg: Config = ACT_CFG,
        bias_spread: float = 0.0,
        init_cfg: Config | list[Config] | None = None,
    ) -> None:
        if init_cfg is None:
            # Norms start at 1 and at their spread biases by themselves.
            init_cfg = dict(type='Kaiming', layer='Conv2d')
        super().__init__(init_cfg)
        _check_choice('depth', depth, tuple(_ARCHITECTURES))
        _check_choice('style', style, ('pytorch', 'caffe'))
        _check_choice('output', output, ('spikes', 'potential'))
        _check_choice('num_stages', num_stages, (1, 2, 3, 4))
        if len(strides) < num_stages or len(dilations) < num_stages:
            raise ValueError(
                f'HoyerResNet: strides {tuple(strides)} and dilations {tuple(dilations)} must have an '
                f'entry for each of the {num_stages} stages'
            )
        if min(*strides, *dilations, base_channels) < 1:
            raise ValueError(
                f'HoyerResNet: strides {tuple(strides)}, dilations {tuple(dilations)} and '
                f'base_channels={base_channels} must be at least 1'
            )
        if norm_cfg is None:
            raise ValueError(
                "HoyerResNet: norm_cfg must name a norm, such as dict(type='BN'), got None"
            )
        _check_choice('frozen_stages', frozen_stages, tuple(range(-1, num_stages + 1)))
        self.out_indices = check_indices('HoyerResNet', out_indices, num_stages)
        self.output = output
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp

        cfgs = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        channels = base_channels if stem_channels is None else stem_channels
        if channels < 1 + deep_stem:
            raise ValueError(
                f'HoyerResNet: the stem needs at least {1 + deep_stem} channels, got {channels} '
                '(stem_channels, base_channels by default)'
            )
        self.stem = _stem(in_channels, channels, deep_stem, **cfgs)
        block, numbers = _ARCHITECTURES[depth]
        self.stages = nn.ModuleList()
        self.outputs = nn.ModuleList()
        out_channels, out_strides, reduction = [], [], 4
        # Nothing behind the last feature map: weights without gradient stop DistributedDataParallel.
        for index in range(self.out_indices[-1] + 1):
            blocks = []
            for number in range(numbers[index]):
                stride = strides[index] if number == 0 else 1
                width = base_channels * 2**index
                blocks.append(block(channels, width, stride, dilations[index], style, **cfgs))
                channels = width * block.expansion
            self.stages.append(nn.Sequential(*blocks))
            reduction *= strides[index]
            if index in self.out_indices:
                self.outputs.append(self._output(channels, block.ends_with_norm, norm_cfg, act_cfg))
                out_channels.append(channels)
                out_strides.append(reduction)
        self.out_channels, self.out_strides = tuple(out_channels), tuple(out_strides)
        spread_biases(self, bias_spread)
        self._freeze_stages()

    def _output(self, channels: int, normed: bool, norm_cfg: Config, act_cfg: Config) -> nn.Module:
        if self.output == 'potential':
            return nn.Identity()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if not normed:
            layers['norm'] = build_norm_layer(norm_cfg, channels)[1]
        layers['act'] = build_activation(act_cfg, channels)
        return SpikingSequential(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features of the stages in ``out_indices`` for images (N, in_channels, H, W)."""
        x = self.stem(x)
        outs = []
        outputs = dict(zip(self.out_indices, self.outputs, strict=True))
        for index, stage in enumerate(self.stages):
            for block in stage:
                x = checkpointed(block, x) if self.with_cp else block(x)
            if index in outputs:
                outs.append(outputs[index](x))
        return tuple(outs)

    def train(self, mode: bool = True) -> 'HoyerResNet':
        """Switch the mode, leaving frozen stages and frozen norms in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            evaluate_norms(self)
        return self

    def _freeze_stages(self) -> None:
        if self.frozen_stages >= 0:
            freeze(self.stem)
        for index, stage in enumerate(self.stages[: max(self.frozen_stages, 0)]):
            freeze(stage)
            if index in self.out_indices:
                freeze(self.outputs[self.out_indices.index(index)])


def _stem(
    in_channels: int,
    channels: int,
    deep: bool,
    conv_cfg: Config | None,
    norm_cfg: Config,
    act_cfg: Config,
) -> nn.Sequential:
    """Convolution of stride 2 -> max pooling -> norm; the neuron behind it is that of a block."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if deep:
        widths = (in_channels, channels // 2, channels // 2, channels)
        for number in range(3):
            stride = 2 if number == 0 else 1
            cfg = spiking_conv_cfg(conv_cfg, act_cfg, reads_spikes=True) if number else conv_cfg
            conv = build_conv_layer(
                cfg, *widths[number : number + 2], 3, stride=stride, padding=1, bias=False
            )
            layers[f'conv{number + 1}'] = conv
            if number < 2:
                layers[f'norm{number + 1}'] = build_norm_layer(norm_cfg, widths[number + 1])[1]
                layers[f'act{number + 1}'] = build_activation(act_cfg, widths[number + 1])
    else:
        layers['conv'] = build_conv_layer(
            conv_cfg, in_channels, channels, 7, stride=2, padding=3, bias=False
        )
    layers['pool'] = build_max_pool(act_cfg, 3, stride=2, padding=1)
    layers['norm'] = build_norm_layer(norm_cfg, channels)[1]
    return SpikingSequential(layers)


def _check_choice(name: str, value: object, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f'HoyerResNet: {name} must be one of {choices}, got {value!r}')
