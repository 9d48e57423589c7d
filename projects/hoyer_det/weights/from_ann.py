"""Starts a spiking backbone from the weights of a conventional network."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.model import initialize, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from ..backbones import HoyerResNet, HoyerVGG
from .reading import initialisations, initialiser, read_checkpoint

Weights = Mapping[str, Tensor]


@WEIGHT_INITIALIZERS.register_module()
class FromANN:
    """Initialises ``HoyerVGG`` or ``HoyerResNet`` from a ReLU network of the same depth and width.

    ``init_cfg=dict(type='FromANN', checkpoint='torchvision://vgg16_bn')``. Sources: torchvision's VGG
    (with or without batch norm) and ResNet; MMDetection's VGG, ``SSDVGG`` and ``ResNet``; and the ReLU
    twins of this package, whose names are ours already. See :func:`map_ann` for what is mapped.

    The log lists the source's tensors without counterpart, and the backbone's that start fresh. Such a
    source has no thresholds: add ``CalibrateFromANNHook`` to the experiment's ``custom_hooks``.

    Args:
        checkpoint: File, ``torchvision://`` name or address; read weights-only.
        prefix: Part of the checkpoint's names, such as ``'backbone.'``, under which the network stands.
    """

    def __init__(self, checkpoint: str, prefix: str | None = None) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix

    def __call__(self, module: nn.Module) -> None:
        """Fill the module.

        Raises:
            ValueError: If the module is no backbone of this package, or the weights do not fit it.
        """
        weights = self.read()
        initialize(module, dict(type='Kaiming', layer='Conv2d'))  # for what the source has not
        mapped = map_ann(weights, module)
        module.load_state_dict(mapped.weights, strict=False)
        fresh = [name for name, _ in module.named_parameters() if name not in mapped.weights]
        lines = [f'{type(module).__name__}: {len(mapped.weights)} tensors of {self.checkpoint}']
        if mapped.left:
            lines.append('without counterpart here: ' + ', '.join(mapped.left))
        if fresh:
            lines.append('not in the source, started fresh: ' + ', '.join(fresh))
        print_log('\n'.join(lines), logger='current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'FromANN: {self.checkpoint}')

    def read(self) -> dict[str, Tensor]:
        """Return the source's weights.

        Raises:
            FileNotFoundError: If there is no such file.
            ConnectionError: If the address cannot be reached.
            ValueError: If it is no checkpoint, or has nothing under the prefix.
        """
        try:
            weights = read_checkpoint(self.checkpoint).weights
        except ConnectionError as error:
            raise ConnectionError(
                f'{error}; put the file into {Path(torch.hub.get_dir()) / "checkpoints"}, or name a copy '
                'of it: model.backbone.init_cfg.checkpoint=FILE, or start from random weights: '
                'model.backbone.init_cfg=None (--cfg-options; model.detector.backbone under SpikingDetector)'
            ) from error
        if self.prefix is not None:
            start = self.prefix.rstrip('.') + '.'
            weights = {k[len(start) :]: v for k, v in weights.items() if k.startswith(start)}
            if not weights:
                raise ValueError(f'FromANN: {self.checkpoint} has no weights under {start!r}')
        return weights


def modules_from_ann(model: nn.Module) -> Iterator[tuple[nn.Module, FromANN]]:
    """Yield the parts of a model that :class:`FromANN` initialises, and how."""
    for module, config in initialisations(model):
        if initialiser(config) == 'FromANN':
            yield module, FromANN(**{k: v for k, v in config.items() if k != 'type'})


@dataclass
class ANNMapping:
    """Weights of a ReLU network by the names of a spiking backbone.

    Attributes:
        weights: Tensors by our names.
        left: Names of the source's tensors without counterpart.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def map_ann(weights: Weights, module: nn.Module) -> ANNMapping:
    """Map the weights of a ReLU network onto a spiking backbone.

    - VGG: convolution by convolution, also ``SSDVGG``'s fc6 and fc7. A bias in front of a batch norm
      moves into its running mean. Batch norms move behind the pooling, which changes nothing as long as
      they rise: a channel of negative slope is turned round first (kernel, mean and slope change sign).
      The biases of a VGG without norms have no counterpart, since a norm would subtract them.
    - ResNet: the norm of the stem moves behind the pooling in the same way. At depth 18 and 34 each
      convolution with its norm becomes a block. At 50 and 101 norms 1 and 2 move in front of convolutions
      2 and 3. Norm 3, and that of a shortcut, have no counterpart: their scale goes into the kernel
      before them, their shift is lost. The norms in front of a first convolution, of a shortcut and at an
      output start fresh.
    - A twin of this package: by name.

    Args:
        weights: Tensors by name.
        module: ``HoyerVGG`` or ``HoyerResNet``.

    Raises:
        ValueError: If the module is neither, or the weights are of another network.
    """
    if isinstance(module, HoyerVGG):
        find = _map_vgg
    elif isinstance(module, HoyerResNet):
        find = _map_resnet
    else:
        raise ValueError(f'FromANN: {type(module).__name__} is neither HoyerVGG nor HoyerResNet')
    if any(name.startswith('stages.') for name in weights):
        if any(name.endswith('.threshold') for name in weights):
            raise ValueError("FromANN: the source spikes; load it with dict(type='Pretrained')")
        found = _Found({name: (value, [name]) for name, value in weights.items()})
    else:
        found = find(weights, module)
    own = module.state_dict()
    found = {name: pair for name, pair in found.items() if name in own}
    for name, (value, sources) in found.items():
        if value.shape != own[name].shape:
            raise ValueError(
                f'FromANN: {sources[0]} {tuple(value.shape)} does not fit {name} '
                f'{tuple(own[name].shape)}; the source is of another depth or width'
            )
    used = {source for _, sources in found.values() for source in sources}
    return ANNMapping(
        {name: value for name, (value, _) in found.items()},
        [name for name in weights if name not in used],
    )


# A tensor by our name, and the names of those it came from.
_Found = dict[str, tuple[Tensor, list[str]]]
_NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def _put_conv_and_norm(
    found: _Found,
    weights: Weights,
    conv: str,
    norm: str,
    our_conv: str,
    our_norm: str,
    pooled: bool = False,
) -> None:
    """Note a convolution, and the norm behind it where there is one.

    Args:
        found: Is added to.
        weights: Those of the source.
        conv: Its name of the convolution.
        norm: Its name of the norm.
        our_conv: Our name of the convolution.
        our_norm: Our name of the norm.
        pooled: Whether a max pooling stands between the two with us, behind both in the source.
    """
    kernel = weights[f'{conv}.weight']
    values = {leaf: weights[f'{norm}.{leaf}'] for leaf in _NORM if f'{norm}.{leaf}' in weights}
    sources = {leaf: [f'{norm}.{leaf}'] for leaf in values}
    if values and f'{conv}.bias' in weights:
        values['running_mean'] = values['running_mean'] - weights[f'{conv}.bias']
        sources['running_mean'].append(f'{conv}.bias')
    if values and pooled:
        sign = torch.where(values['weight'] < 0, -1.0, 1.0)
        kernel = kernel * sign.view(-1, 1, 1, 1)
        for leaf in ('weight', 'running_mean'):
            values[leaf] = values[leaf] * sign
    found[f'{our_conv}.weight'] = kernel, [f'{conv}.weight']
    for leaf, value in values.items():
        found[f'{our_norm}.{leaf}'] = value, sources[leaf]


def _map_vgg(weights: Weights, module: HoyerVGG) -> _Found:
    numbers = sorted({int(m[1]) for name in weights if (m := re.match(r'features\.(\d+)\.', name))})
    convs = [n for n in numbers if weights.get(f'features.{n}.weight', torch.empty(0)).dim() == 4]
    if not convs:
        raise ValueError(
            "FromANN: no convolution under 'features.{i}' in the source "
            f'(first name {next(iter(weights), None)!r}); does it need a prefix?'
        )
    blocks = {
        f'stages.{stage}.{number}': hasattr(block, 'pool')
        for stage, layers in enumerate(module.stages)
        for number, block in enumerate(layers)
    }
    found = _Found()
    for number, (block, pooled) in zip(convs, blocks.items(), strict=False):
        norm = f'features.{number + 1}'
        if f'{norm}.running_mean' not in weights:
            norm = ''
        names = f'features.{number}', norm, f'{block}.conv', f'{block}.norm'
        _put_conv_and_norm(found, weights, *names, pooled)
    return found


def _map_resnet(weights: Weights, module: HoyerResNet) -> _Found:
    if 'conv1.weight' not in weights or 'layer1.0.conv1.weight' not in weights:
        raise ValueError(
            "FromANN: no 'conv1' and 'layer1' in the source "
            f'(first name {next(iter(weights), None)!r}); does it need a prefix?'
        )
    bottleneck = 'layer1.0.conv3.weight' in weights
    if bottleneck != hasattr(module.stages[0][0], 'conv3'):
        raise ValueError(
            'FromANN: the source and the backbone differ in their blocks (bottleneck or basic)'
        )
    found = _Found()
    _put_conv_and_norm(found, weights, 'conv1', 'bn1', 'stem.conv', 'stem.norm', pooled=True)
    blocks = {
        (int(m[1]), int(m[2]))
        for name in weights
        if (m := re.match(r'layer([1-4])\.(\d+)\.', name))
    }
    for layer, block in sorted(blocks):
        theirs = f'layer{layer}.{block}'
        if bottleneck:
            ours = shortcut = f'stages.{layer - 1}.{block}'
            for number in (1, 2):
                names = f'{theirs}.conv{number}', f'{theirs}.bn{number}'
                names += f'{ours}.conv{number}', f'{ours}.norm{number + 1}'
                _put_conv_and_norm(found, weights, *names)
            _put_scaled(found, weights, f'{theirs}.conv3', f'{theirs}.bn3', f'{ours}.conv3')
        else:
            shortcut = f'stages.{layer - 1}.{2 * block}'
            for number in (1, 2):
                ours = f'stages.{layer - 1}.{2 * block + number - 1}'
                names = f'{theirs}.conv{number}', f'{theirs}.bn{number}'
                _put_conv_and_norm(found, weights, *names, f'{ours}.conv', f'{ours}.norm')
        if f'{theirs}.downsample.0.weight' in weights:
            names = f'{theirs}.downsample.0', f'{theirs}.downsample.1', f'{shortcut}.shortcut.conv'
            _put_scaled(found, weights, *names)
    return found


def _put_scaled(found: _Found, weights: Weights, conv: str, norm: str, our_conv: str) -> None:
    """Note a convolution with the scale of the norm behind it, for which there is no place."""
    scale = weights[f'{norm}.weight'] / (weights[f'{norm}.running_var'] + 1e-5).sqrt()
    sources = [f'{conv}.weight', f'{norm}.weight', f'{norm}.running_var']
    found[f'{our_conv}.weight'] = weights[f'{conv}.weight'] * scale.view(-1, 1, 1, 1), sources
