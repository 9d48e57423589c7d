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

from ..kernels import FastHoyerSpike, LeanMaxPool2d, norm_spike
from ..spiking import HoyerSpike, spiking_layers

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
    _check_activation(act_cfg)
    act_cfg = dict(act_cfg)
    if 'inplace' in act_cfg:
        act_cfg['inplace'] = False  # a shortcut may read the same tensor
    if is_spiking(act_cfg):
        act_cfg.setdefault('num_features', channels)
    return build_activation_layer(act_cfg)


def _check_activation(act_cfg: Any) -> None:
    if not isinstance(act_cfg, dict) or 'type' not in act_cfg:
        raise ValueError(
            f"act_cfg must name an activation, such as dict(type='HoyerSpike'), got {act_cfg!r}"
        )


def is_spiking(act_cfg: dict[str, Any] | None) -> bool:
    """Tell whether a config names the neuron."""
    if act_cfg is None:
        return False
    _check_activation(act_cfg)
    return act_cfg['type'] in ('HoyerSpike', HoyerSpike, FastHoyerSpike)


def spiking_conv_cfg(
    conv_cfg: dict[str, Any] | None, act_cfg: dict[str, Any] | None, reads_spikes: bool = False
) -> dict[str, Any] | None:
    """Return the config of a convolution; by default, one that keeps the spikes it reads as bits.

    Args:
        conv_cfg: Config that was asked for, returned if there is one.
        act_cfg: Config of the network's activations; without neurons there are no spikes.
        reads_spikes: Whether the layer before sends 0 and 1 for certain.
    """
    if conv_cfg is not None or not is_spiking(act_cfg):
        return conv_cfg
    level = act_cfg.get('kernels', 'tested')
    return dict(type='SpikeConv2d', reads_spikes=reads_spikes, kernels=level)


def build_max_pool(act_cfg: dict[str, Any], *args: Any, **kwargs: Any) -> nn.MaxPool2d:
    """Build max pooling: lean in a spiking network, PyTorch's own in a twin.

    Args:
        act_cfg: Config of the network's activations.
        *args: As for ``nn.MaxPool2d``.
        **kwargs: As for ``nn.MaxPool2d``.
    """
    if is_spiking(act_cfg):
        return LeanMaxPool2d(*args, kernels=act_cfg.get('kernels', 'tested'), **kwargs)
    return nn.MaxPool2d(*args, **kwargs)


class SpikingConvModule(ConvModule):
    """mmcv's ``ConvModule``, whose norm and neuron are computed in one."""

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """Run convolution, norm and activation, unless the last two are switched off."""
        plain = self.with_explicit_padding or self.order != ('conv', 'norm', 'act')
        if plain or not (activate and norm and self.with_norm and self.with_activation):
            return super().forward(x, activate, norm)
        return norm_spike(self.norm, self.activate, self.conv(x))


def use_spiking_conv_modules(module: nn.Module) -> None:
    """Put a :class:`SpikingConvModule` in the place of each ``ConvModule`` with a neuron.

    MMDetection builds these layers inside its own constructors. Parameters keep their names. The
    neurons are told their channels, which ``ConvModule`` does not do, and without which a copy of the
    model made before the first batch (``EMAHook``) has no channel-wise extrema.

    Args:
        module: Module that holds ``ConvModule`` layers.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            act = getattr(child, 'activate', None)
            if type(child) is not ConvModule or not isinstance(act, HoyerSpike):
                continue
            first = child.order.index('act') < child.order.index('conv')
            act.set_channels(child.in_channels if first else child.out_channels)
            spiking = SpikingConvModule.__new__(SpikingConvModule)
            spiking.__dict__.update(child.__dict__)
            setattr(parent, name, spiking)


class SpikingSequential(nn.Sequential):
    """Layers in a row, of which a norm and the neuron right behind it are computed in one."""

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers."""
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if layers and isinstance(layers[0], HoyerSpike):
                x = norm_spike(layer, layers.pop(0), x)
            else:
                x = layer(x)
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
        reads_spikes: Whether the layer before sends 0 and 1 for certain.
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
        reads_spikes: bool = False,
    ) -> None:
        super().__init__()
        self.conv = build_conv_layer(
            spiking_conv_cfg(conv_cfg, act_cfg, reads_spikes),
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

    Raises:
        ValueError: If it is negative.
    """
    if half_width < 0:
        raise ValueError(f'bias_spread must be at least 0, got {half_width!r}')
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
    no neuron its running average. Outputs are the same inside and outside.

    Args:
        module: Module that runs again.
    """

    def __init__(self, module: nn.Module) -> None:
        self._norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        self._neurons = list(spiking_layers(module).values())
        self._kept: list[tuple[float | None, Tensor | None]] = []
        self._tracking: list[bool] = []

    def __enter__(self) -> None:
        # Not `track_running_stats`: the same tensors must be saved for the backward pass.
        self._kept = [(norm.momentum, norm.num_batches_tracked) for norm in self._norms]
        for norm in self._norms:
            count = norm.num_batches_tracked
            if norm.momentum is None:  # a mean over all batches, which one of so many does not move
                norm.num_batches_tracked = torch.full_like(count, 2**60)
                continue
            norm.momentum = 0.0
            # A copy instead of None, which SyncBN refuses.
            if count is not None:
                norm.num_batches_tracked = count.clone()
        self._tracking = [neuron.tracking for neuron in self._neurons]
        for neuron in self._neurons:
            neuron.tracking = False

    def __exit__(self, *error: object) -> None:
        for norm, kept in zip(self._norms, self._kept, strict=True):
            norm.momentum, norm.num_batches_tracked = kept
        for neuron, tracking in zip(self._neurons, self._tracking, strict=True):
            neuron.tracking = tracking


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
    indices = tuple(out_indices) if isinstance(out_indices, Sequence) else ()
    if (
        not indices
        or sorted(set(indices)) != list(indices)
        or not 0 <= indices[0] <= indices[-1] < stages
    ):
        raise ValueError(
            f'{owner}: out_indices must be ascending numbers of stages from 0 to {stages - 1}, '
            f'got {out_indices}'
        )
    return indices
