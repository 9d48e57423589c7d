"""Between the layout of the authors' public classifiers and ours, both ways.

Names and shapes follow the public code to arXiv 2212.10170. Theirs, a VGG: ``features.{i}`` is a flat
sequence of convolution, [pooling], batch norm, spike layer (and dropout, in some versions), and
``classifier.{i}`` one of linear layers and spike layers. A ResNet: ``conv1`` (for CIFAR a sequence of
three convolutions), ``bn1``, ``layer{1-4}.{j}`` with ``act, conv, bn1`` or ``bn{k}, act{k}, conv{k}``
and the shortcut ``downsample.{0-3}``, then ``fc_act`` behind the pooling, and ``fc``. Ours is a
``SpikingClassifier``.

A spike layer of theirs holds ``threshold``, ``running_hoyer_thr``, and ``num_batches_tracked``, which
stays 0: its average is used as it stands, without a correction for its start. That is a
``running_weight`` of 1 in ``HoyerSpike``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor

Weights = Mapping[str, Tensor]
# Convolutions of each VGG, and blocks of each ResNet, by stage.
_VGG_STAGES = {8: (1, 1, 2, 2, 2), 10: (2,) * 5, 13: (2, 2, 3, 3, 3), 16: (2, 2, 4, 4, 4)}
_VGG_DEPTHS = {8: 11, 10: 13, 13: 16, 16: 19}
_RESNET_DEPTHS = {
    (False, (4, 4, 4, 4)): 18,
    (False, (6, 8, 12, 6)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
}
_SPIKE_LEAVES = ('threshold', 'running_hoyer_thr', 'num_batches_tracked')
_CIFAR_STEM = ('conv1', 'norm1', 'act1', 'conv2', 'norm2', 'act2', 'conv3')


@dataclass
class Conversion:
    """What became of a set of weights.

    Attributes:
        weights: Converted tensors by their new names.
        names: Names of the authors' layers by those of ours.
        backbone: Config of the backbone that the weights fit.
        neurons: Settings of the neurons by name, as ``NeuronSettingsHook`` compares them.
        left: Names of the given tensors that have no counterpart.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    neurons: dict[str, dict[str, Any]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def from_authors(weights: Weights) -> Conversion:
    """Convert weights of the authors' classifiers into those of a ``SpikingClassifier``.

    Args:
        weights: Tensors by name, without wrapper and ``module.`` prefix.

    Raises:
        ValueError: If they are no such classifier, or not of a depth that our backbones have.
    """
    kinds = _kinds(weights)
    if any(name.startswith('features.') for name in kinds):
        names, backbone = _name_vgg(kinds, weights)
    elif 'conv1' in kinds or 'conv1.0' in kinds:
        names, backbone = _name_resnet(kinds, weights)
    else:
        raise ValueError(
            "no classifier of the authors: neither 'features.{i}' (VGG) nor 'conv1' (ResNet) in it, "
            f'first name {next(iter(weights), None)!r}'
        )
    missing = [theirs for theirs in names.values() if theirs not in kinds]
    if missing:
        raise ValueError(f'{missing[0]}: missing, which a classifier of the authors has')
    converted = Conversion(names=names, backbone=backbone)
    used: set[str] = set()
    for ours, theirs in names.items():
        tensors = _tensors(weights, theirs)
        if kinds[theirs] == 'spike':
            used |= {f'{theirs}.{leaf}' for leaf in _SPIKE_LEAVES}
            tensors = _neuron_from(theirs, tensors)
        else:
            used |= {f'{theirs}.{leaf}' for leaf in tensors}
        converted.weights.update({f'{ours}.{leaf}': value for leaf, value in tensors.items()})
    converted.left = [name for name in weights if name not in used]
    channels = [
        value.numel()
        for name, value in converted.weights.items()
        if name.startswith('backbone.') and name.endswith('.running_extremum')
    ]
    if not channels:
        raise ValueError(
            'no spike layer (threshold, running_hoyer_thr) in it; FromANN takes the weights of ReLU networks'
        )
    extremum = 'channel' if max(channels) > 1 else 'layer'
    # Their code leaves potentials beyond the clip threshold out of the extremum.
    backbone['act_cfg'] = dict(type='HoyerSpike', extremum=extremum, saturated='exclude')
    _check_backbone(converted)
    ending = '.running_extremum'
    converted.neurons = {
        name.removesuffix(ending): dict(
            extremum='channel' if value.numel() > 1 else 'layer', saturated='exclude'
        )
        for name, value in converted.weights.items()
        if name.endswith(ending)
    }
    return converted


def to_authors(
    weights: Weights,
    names: Mapping[str, str] | None = None,
    final_pool: bool = True,
    neurons: Mapping[str, Mapping[str, Any]] | None = None,
) -> Conversion:
    """Convert weights of a ``SpikingClassifier`` into the authors' layout.

    It must be one without ``shortcut``, which has no weights to tell it by and no counterpart there.

    Args:
        weights: Tensors by name.
        names: Names of the authors' layers by ours, as :func:`from_authors` found them; without them
            the layers are numbered as in the authors' code: convolution, [pooling], norm, spike layer.
        final_pool: Whether a pooling of the last VGG stage counts in that numbering; not in
            ``HoyerVGGCIFAR``.
        neurons: Settings of the neurons by name, as a checkpoint has them under ``meta.neurons``. An
            ``extremum_scale`` goes into their averages; it is 1 where none is given.

    Raises:
        ValueError: If there is no backbone in the weights.
    """
    kinds = _kinds(weights)
    if names is None:
        if 'backbone.stem.norm' in kinds:
            names = _names_of_resnet(kinds)
        elif 'backbone.stages.0.0.norm' in kinds:
            names = _names_of_vgg(kinds, final_pool)
        else:
            raise ValueError(
                'no SpikingClassifier: neither backbone.stem.norm (HoyerResNet) nor '
                'backbone.stages.0.0.norm (HoyerVGG) in it'
            )
    converted = Conversion(names=dict(names))
    used: set[str] = set()
    for ours, theirs in names.items():
        if ours not in kinds:
            raise ValueError(f'{ours}: no weights of this name, the authors have them as {theirs}')
        tensors = _tensors(weights, ours)
        used |= {f'{ours}.{leaf}' for leaf in tensors}
        if kinds[ours] == 'spike':
            settings = (neurons or {}).get(ours, {})
            tensors = _neuron_to(tensors, settings.get('extremum_scale', 1.0))
        converted.weights.update({f'{theirs}.{leaf}': value for leaf, value in tensors.items()})
    converted.left = [name for name in weights if name not in used]
    return converted


# ------------------------------------------------------------------------------------------------
# Layers
# ------------------------------------------------------------------------------------------------


def _kinds(weights: Weights) -> dict[str, str]:
    """Tell by their tensors what the layers are: 'spike', 'norm', 'conv' or 'linear'."""
    leaves: dict[str, set[str]] = {}
    for name in weights:
        layer, _, leaf = name.rpartition('.')
        leaves.setdefault(layer, set()).add(leaf)
    kinds = {}
    for layer, present in leaves.items():
        if 'threshold' in present:
            kinds[layer] = 'spike'
        elif 'running_mean' in present:
            kinds[layer] = 'norm'
        elif 'weight' in present:
            dims = weights[f'{layer}.weight'].dim()
            if dims in (2, 4):
                kinds[layer] = 'linear' if dims == 2 else 'conv'
    return kinds


def _tensors(weights: Weights, layer: str) -> dict[str, Tensor]:
    """Return the tensors of one layer by their last name."""
    start = len(layer) + 1
    return {
        name[start:]: value
        for name, value in weights.items()
        if name.startswith(f'{layer}.') and '.' not in name[start:]
    }


def _neuron_from(layer: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    missing = [leaf for leaf in _SPIKE_LEAVES[:2] if leaf not in tensors]
    if missing:
        raise ValueError(f'{layer}: a spike layer without {missing[0]}')
    if tensors.get(_SPIKE_LEAVES[2], torch.tensor(0)) != 0:
        raise ValueError(
            f'{layer}.num_batches_tracked is not 0: not the public code, its average may need a correction'
        )
    if not tensors['threshold'] > 0:
        # They divide by the threshold itself, HoyerSpike by its amount.
        raise ValueError(
            f'{layer}.threshold is {tensors["threshold"].item():g}: only positive ones mean the same here'
        )
    extremum = tensors['running_hoyer_thr']
    extremum = extremum.reshape(-1)
    return dict(
        threshold=tensors['threshold'],
        running_extremum=extremum,
        running_weight=torch.ones_like(extremum),
    )


def _neuron_to(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    weight = tensors['running_weight']
    # A channel that never had a positive potential has no average, it fires at the clip threshold.
    extremum = torch.where(weight > 0, tensors['running_extremum'] / weight, 1.0)
    return dict(
        threshold=tensors['threshold'].abs(),
        running_hoyer_thr=scale * extremum,
        num_batches_tracked=torch.tensor(0),
    )


def _check_backbone(converted: Conversion) -> None:
    """Make sure that the backbone is complete and of the right shapes; sort out what it has not."""
    with torch.device('meta'):
        expected = MODELS.build(converted.backbone).state_dict()
    for name in list(converted.weights):
        if name.startswith('backbone.') and name.removeprefix('backbone.') not in expected:
            layer, _, leaf = name.rpartition('.')
            converted.left.append(f'{converted.names[layer]}.{leaf}')
            del converted.weights[name]
    for name, tensor in expected.items():
        found = converted.weights.get(f'backbone.{name}')
        if found is None:
            raise ValueError(
                f'no weights for {name} of {_call(converted.backbone)}: the checkpoint is incomplete '
                'or of another structure'
            )
        if found.shape != tensor.shape:
            layer = converted.names[f'backbone.{name}'.rpartition('.')[0]]
            raise ValueError(
                f'{layer}: {name.rpartition(".")[2]} has shape {tuple(found.shape)}, '
                f'{_call(converted.backbone)} needs {tuple(tensor.shape)}'
            )


def _call(config: Mapping[str, Any]) -> str:
    return f'{config["type"]}(depth={config["depth"]})'


# ------------------------------------------------------------------------------------------------
# VGG
# ------------------------------------------------------------------------------------------------


def _numbered(kinds: Mapping[str, str], prefix: str) -> dict[int, str]:
    """Return the kinds of ``prefix.{i}`` by number, ascending."""
    found = {
        int(name[len(prefix) + 1 :]): kind
        for name, kind in kinds.items()
        if re.fullmatch(rf'{re.escape(prefix)}\.\d+', name)
    }
    return dict(sorted(found.items()))


def _name_vgg(kinds: Mapping[str, str], weights: Weights) -> tuple[dict[str, str], dict[str, Any]]:
    features = _numbered(kinds, 'features')
    numbers = list(features)
    if [features[n] for n in numbers] != ['conv', 'norm', 'spike'] * (len(numbers) // 3):
        raise ValueError(
            'features: expected convolution, batch norm and spike layer in turn, found '
            + ', '.join(f'{n} {kind}' for n, kind in features.items())
        )
    convs = numbers[::3]
    if len(convs) not in _VGG_STAGES:
        raise ValueError(
            f'features: {len(convs)} convolutions, HoyerVGG has {tuple(_VGG_STAGES)} of them'
        )
    stages = _VGG_STAGES[len(convs)]
    names: dict[str, str] = {}
    pools = []
    for number, (stage, block) in zip(convs, _places(stages), strict=True):
        first = numbers.index(number)
        for layer, place in zip(('conv', 'norm', 'act'), numbers[first : first + 3], strict=True):
            names[f'backbone.stages.{stage}.{block}.{layer}'] = f'features.{place}'
        # A place left free is that of a layer without weights.
        pools.append(numbers[first + 1] - number > 1)
    expected = [block == stages[stage] - 1 for stage, block in _places(stages)]
    if pools[:-1] != expected[:-1]:
        raise ValueError(
            'features: pooling behind convolutions '
            f'{[i for i, pool in enumerate(pools) if pool]}, HoyerVGG has it behind '
            f'{[i for i, pool in enumerate(expected) if pool]} (counted from 0)'
        )
    backbone = dict(
        type='HoyerVGG' if pools[-1] else 'HoyerVGGCIFAR',
        depth=_VGG_DEPTHS[len(convs)],
        width=weights[f'features.{convs[0]}.weight'].size(0) / 64,
        in_channels=weights[f'features.{convs[0]}.weight'].size(1),
        out_indices=(4,),
    )
    counts = dict(linear=0, spike=0)
    for number, kind in _numbered(kinds, 'classifier').items():
        if kind in counts:
            name = 'fcs' if kind == 'linear' else 'acts'
            names[f'head.{name}.{counts[kind]}'] = f'classifier.{number}'
            counts[kind] += 1
    return names, backbone


def _places(stages: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(stage, block) for stage, blocks in enumerate(stages) for block in range(blocks)]


def _names_of_vgg(kinds: Mapping[str, str], final_pool: bool) -> dict[str, str]:
    places = [
        tuple(map(int, match.groups()))
        for name in kinds
        if (match := re.fullmatch(r'backbone\.stages\.([0-4])\.(\d+)\.conv', name))
    ]
    names: dict[str, str] = {}
    number = 0
    for stage, block in sorted(places):
        pooled = (stage, block + 1) not in places and (stage < 4 or final_pool)
        for layer, step in (('conv', 1 + pooled), ('norm', 1), ('act', 1)):
            names[f'backbone.stages.{stage}.{block}.{layer}'] = f'features.{number}'
            number += step
    for index in sorted(int(n.rpartition('.')[2]) for n in kinds if n.startswith('head.fcs.')):
        names[f'head.fcs.{index}'] = f'classifier.{2 * index}'
        if f'head.acts.{index}' in kinds:
            names[f'head.acts.{index}'] = f'classifier.{2 * index + 1}'
    return names


# ------------------------------------------------------------------------------------------------
# ResNet
# ------------------------------------------------------------------------------------------------


def _name_resnet(
    kinds: Mapping[str, str], weights: Weights
) -> tuple[dict[str, str], dict[str, Any]]:
    stem = [f'conv1.{number}' for number in _numbered(kinds, 'conv1')]
    cifar = len(stem) > 1
    if cifar and [kinds[name] for name in stem] != ['conv', 'norm', 'spike'] * 2 + ['conv']:
        raise ValueError(
            'conv1: expected three convolutions with batch norm and spike layer between, found '
            + ', '.join(kinds[name] for name in stem)
        )
    theirs = stem or ['conv1']
    ours = _CIFAR_STEM if cifar else ('conv',)
    names = {f'backbone.stem.{name}': layer for name, layer in zip(ours, theirs, strict=True)}
    names['backbone.stem.norm'] = 'bn1'

    bottleneck = 'layer1.0.conv1' in kinds
    blocks = [0, 0, 0, 0]
    for name, kind in kinds.items():
        match = re.fullmatch(r'layer([1-4])\.(\d+)\.(.+)', name)
        if not match:
            continue
        layer, block, rest = int(match[1]) - 1, int(match[2]), match[3]
        place = _place_in_block(rest, kind, bottleneck)
        if place is not None:
            names[f'backbone.stages.{layer}.{block}.{place}'] = name
            blocks[layer] = max(blocks[layer], block + 1)
    depth = _RESNET_DEPTHS.get((bottleneck, tuple(blocks)))
    if depth is None:
        raise ValueError(
            f'layer1 to layer4 have {tuple(blocks)} blocks of {3 if bottleneck else 1} convolutions; '
            'HoyerResNet has (4, 4, 4, 4) and (6, 8, 12, 6) of one, (3, 4, 6, 3) and (3, 4, 23, 3) of three'
        )
    for ours_name, name in (('head.input_act', 'fc_act'), ('head.fcs.0', 'fc')):
        if name in kinds:
            names[ours_name] = name
    conv = weights[f'{theirs[0]}.weight']
    backbone = dict(
        type='HoyerResNetCIFAR' if cifar else 'HoyerResNet',
        depth=depth,
        base_channels=conv.size(0),
        in_channels=conv.size(1),
        out_indices=(3,),
        output='potential',
    )
    return names, backbone


def _place_in_block(name: str, kind: str, bottleneck: bool) -> str | None:
    """Return our name of a layer of a block, None if there is none."""
    if bottleneck and re.fullmatch(r'(bn|act|conv)[1-3]', name):
        return name.replace('bn', 'norm')
    if not bottleneck and name in ('act', 'conv', 'bn1'):
        return name.replace('bn1', 'norm')
    if re.fullmatch(r'downsample\.[0-3]', name):
        return {'norm': 'shortcut.norm', 'spike': 'shortcut.act', 'conv': 'shortcut.conv'}.get(kind)
    return None


def _names_of_resnet(kinds: Mapping[str, str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in kinds:
        match = re.fullmatch(r'backbone\.stages\.([0-3])\.(\d+)\.(.+)', name)
        if match:
            rest = match[3].replace('norm', 'bn')
            if rest == 'bn':
                rest = 'bn1'
            for place, layer in enumerate(('bn', 'act', 'conv'), start=1):  # 0 is the pooling
                rest = rest.replace(f'shortcut.{layer}', f'downsample.{place}')
            names[name] = f'layer{int(match[1]) + 1}.{match[2]}.{rest}'
    if 'backbone.stem.conv1' in kinds:
        names |= {f'backbone.stem.{n}': f'conv1.{place}' for place, n in enumerate(_CIFAR_STEM)}
    else:
        names['backbone.stem.conv'] = 'conv1'
    names['backbone.stem.norm'] = 'bn1'
    names |= {
        ours: theirs
        for ours, theirs in (('head.input_act', 'fc_act'), ('head.fcs.0', 'fc'))
        if ours in kinds
    }
    return names
