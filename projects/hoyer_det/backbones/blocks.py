"""The building block of the spiking networks: convolution, optional pooling, norm, spike."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from mmcv.cnn import (
    ConvModule,
    build_activation_layer,
    build_conv_layer,
    build_norm_layer,
    is_norm,
)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..spiking import HoyerSpike, convolve
from ..spiking.fused.switch import path_of_now

NORM_CFG = dict(type='BN')
ACT_CFG = dict(type='HoyerSpike')


def build_activation(act_cfg: dict[str, Any], channels: int) -> nn.Module:
    """Build an activation; a ``HoyerSpike`` is told its number of channels.

    Args:
        act_cfg: Config of the activation.
        channels: Number of channels it will see.

    Raises:
        ValueError: If there is no config.
    """
    if act_cfg is None:
        raise ValueError(
            "act_cfg must name an activation, such as dict(type='HoyerSpike'), got None"
        )
    act_cfg = dict(act_cfg)
    if 'inplace' in act_cfg:
        act_cfg['inplace'] = False  # a shortcut may read the same tensor
    if act_cfg['type'] == 'HoyerSpike':
        act_cfg.setdefault('num_features', channels)
    return build_activation_layer(act_cfg)


class SpikingConvModule(ConvModule):
    """mmcv's ``ConvModule``, whose norm and neuron are computed in one in training."""

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """Run convolution, norm and activation, unless the last two are switched off."""
        if (
            self.training
            and activate
            and norm
            and self.with_norm
            and not self.with_explicit_padding
            and self.order == ('conv', 'norm', 'act')
        ):
            return norm_then_act(self.norm, self.activate, convolve(self.conv, x))
        return super().forward(x, activate, norm)


def prepare_conv_modules(module: nn.Module) -> None:
    """Tell the neurons in mmcv's ``ConvModule`` layers their channels, and fuse them with their norms.

    ``ConvModule`` hands its activation no channels, and without them a copy of the model that is made
    before the first batch (``EMAHook``) has no channel-wise extrema.

    Args:
        module: Module that holds ``ConvModule`` layers; they become :class:`SpikingConvModule`.
    """
    for child in module.modules():
        if isinstance(child, ConvModule) and isinstance(
            getattr(child, 'activate', None), HoyerSpike
        ):
            child.activate.set_channels(child.out_channels)
            # MMDetection builds these layers inside its own constructors; names and state are the same.
            if type(child) is ConvModule:
                child.__class__ = SpikingConvModule


def norm_then_act(norm: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """Return ``act(norm(x))``, computed in one where the two are a batch norm and a neuron."""
    if isinstance(act, HoyerSpike) and act.takes_norm(norm, x):
        return act(x, norm)
    return act(norm(x))


class SpikingSequential(nn.Sequential):
    """Layers in a row that train in less memory.

    A norm and the neuron right behind it are computed in one, and convolutions unpack the spikes they
    read few at a time.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers."""
        layers = [*self, None]
        index = 0
        while index < len(self):
            layer, behind = layers[index : index + 2]
            if isinstance(behind, HoyerSpike):
                x = norm_then_act(layer, behind, x)
                index += 2
            else:
                x = convolve(layer, x)
                index += 1
        return x


class SpikingConvBlock(SpikingSequential):
    """Convolution -> [pooling] -> norm -> activation.

    The pooling stands right after the convolution, on real-valued sums, as in the authors' VGG. The
    convolution has no bias when a norm follows.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel.
        stride: Stride of the convolution.
        padding: Padding of the convolution.
        dilation: Dilation of the convolution.
        pool: Pooling layer put between convolution and norm.
        conv_cfg: Config of the convolution, a plain ``Conv2d`` by default.
        norm_cfg: Config of the norm, batch norm by default; None for no norm.
        act_cfg: Config of the activation, ``HoyerSpike`` by default.
        bias_spread: Half width of the interval from which the biases of the norm start, uniformly,
            when the activation is a ``HoyerSpike``. At 0 all channels start by firing at the same
            quantile of their potential; spread, they start as detectors of different levels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        pool: nn.Module | None = None,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = NORM_CFG,
        act_cfg: dict[str, Any] = ACT_CFG,
        bias_spread: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = build_conv_layer(
            conv_cfg,
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            bias=norm_cfg is None,
        )
        if pool is not None:
            self.pool = pool
        if norm_cfg is not None:
            self.norm = build_norm_layer(norm_cfg, out_channels)[1]
        self.act = build_activation(act_cfg, out_channels)
        spread_biases(self, bias_spread)


def spread_biases(module: nn.Module, half_width: float) -> None:
    """Draw the biases of all norms of a spiking module uniformly from [-half_width, half_width].

    Nothing happens to a module without ``HoyerSpike``, such as a ReLU twin. For the reason see
    :class:`SpikingConvBlock`.

    Args:
        module: Module whose norms stand before neurons.
        half_width: Half width of the interval; 0 leaves the biases alone.
    """
    if not half_width or not any(isinstance(m, HoyerSpike) for m in module.modules()):
        return
    for norm in filter(is_norm, module.modules()):
        if norm.bias is not None:
            nn.init.uniform_(norm.bias, -half_width, half_width)


def evaluate_norms(module: nn.Module) -> None:
    """Put every batch norm of a module into evaluation mode."""
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            child.eval()


def freeze(module: nn.Module) -> None:
    """Put a module into evaluation mode and stop its gradients."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad = False


class SecondForward:
    """Context of the forward pass that gradient checkpointing runs again in the backward pass.

    No batch norm of the module moves its running statistics, which would count that batch twice, and
    neurons take the path (fused or plain) of the first time. Outputs are the same inside and outside.

    Args:
        module: Module that runs again.
    """

    def __init__(self, module: nn.Module) -> None:
        self._norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        self._kept: list[tuple[float | None, Tensor | None]] = []
        self._path = path_of_now()

    def __enter__(self) -> None:
        self._path.__enter__()
        # Not `track_running_stats`: the same tensors must be saved for the backward pass.
        self._kept = [(norm.momentum, norm.num_batches_tracked) for norm in self._norms]
        for norm in self._norms:
            norm.momentum = 0.0
            # A copy instead of None, which SyncBN refuses.
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked = norm.num_batches_tracked.clone()

    def __exit__(self, *error: object) -> None:
        self._path.__exit__(*error)
        for norm, kept in zip(self._norms, self._kept, strict=True):
            norm.momentum, norm.num_batches_tracked = kept


def checkpointed(module: nn.Module, x: Tensor) -> Tensor:
    """Run a module by (non-reentrant) gradient checkpointing where gradients are wanted."""
    if not (module.training and torch.is_grad_enabled()):
        return module(x)
    contexts = nullcontext(), SecondForward(module)
    return checkpoint(module, x, use_reentrant=False, context_fn=lambda: contexts)


def check_indices(owner: str, out_indices: Sequence[int], stages: int) -> tuple[int, ...]:
    """Return ``out_indices`` as a tuple.

    Raises:
        ValueError: If they are empty, not ascending, or name a stage that does not exist.
    """
    indices = tuple(out_indices)
    if (
        not indices
        or sorted(set(indices)) != list(indices)
        or not 0 <= indices[0] <= indices[-1] < stages
    ):
        raise ValueError(
            f'{owner}: out_indices must be ascending numbers of stages from 0 to {stages - 1}, '
            f'got {indices}'
        )
    return indices
