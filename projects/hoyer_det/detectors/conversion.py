"""Replaces the activations of a network by spiking neurons."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mmcv.cnn.bricks.activation as mmcv_activation
from mmcv.cnn import ConvModule, HSigmoid, HSwish, Swish, is_norm
from mmdet.registry import MODELS
from torch import nn
from torch.nn.modules.conv import _ConvNd

from ..spiking import HoyerSpike
from .call_sites import FUNCTIONS, Calls, count_calls, function_calls, is_used
from .per_call import SpikePerCall

RECTIFIERS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU),
    *(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, HSwish, Swish, mmcv_activation.GELU),
)
_NORMALISERS = (nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.Softmax2d)
_GATES = (nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.GLU, HSigmoid)
_OTHERS = tuple(
    value
    for name in nn.modules.activation.__all__
    if (value := getattr(nn, name)) is not nn.MultiheadAttention
)
_TOKENS = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Activation:
    """What became of one activation.

    Attributes:
        name: Dotted name of the module.
        place: Class of its parent and name in it, ``'Bottleneck.relu'``.
        kind: Class of the activation, or the name of the function.
        neurons: Number of neurons in its place; 0 if it was left.
        spiking: Whether spikes leave it now.
        note: Why it was left, or what is particular about it.
    """

    name: str
    place: str
    kind: str
    neurons: int
    spiking: bool
    note: str = ''


def convert_activations(
    module: nn.Module, act_cfg: dict[str, Any], prefix: str = ''
) -> list[Activation]:
    """Put a ``HoyerSpike`` in the place of every rectifying activation below a module.

    Rectifying are ReLU and its relatives up to GELU, SiLU and Swish. Gates and normalisers (sigmoid,
    tanh, softmax, ...) are left, and so is what cannot be replaced: activations that the source calls
    as a function, and modules that nobody calls. An activation that its parent calls at several places
    becomes a :class:`SpikePerCall` with a neuron each; where the number of places cannot be read from
    the source, and where one instance stands in several places of the tree, one neuron serves them all.

    With ``extremum='channel'`` a neuron is told its number of channels where a convolution or norm
    before it tells; behind a ``Linear``, whose dimension 1 may be tokens, it becomes
    ``extremum='layer'``. The list says so.

    Args:
        module: Changed in place.
        act_cfg: Config of the neuron.
        prefix: Name of the module, put before the names in the list.

    Returns:
        What became of each activation, in the order of the tree.

    Raises:
        ValueError: If ``act_cfg`` is no ``HoyerSpike``, or a block would run part of itself a second
            time (``with_cp=True``).
    """
    check_act_cfg(act_cfg)
    report: list[Activation] = []
    slots = list(_slots(module, prefix))
    places = Counter(id(child) for _, _, _, child in slots if child is not None)
    replaced: dict[int, nn.Module] = {}
    for parent, name, path, child in slots:
        if child is None:
            report += _functions(parent, path)
            continue
        place = f'{type(parent).__name__}.{name}' if name.isidentifier() else type(parent).__name__
        kind = type(child).__name__
        if id(child) in replaced:
            setattr(parent, name, replaced[id(child)])
            report.append(Activation(path, place, kind, 0, True, 'shared, see above'))
            continue
        left = _reason_to_leave(parent, name, child, shared=places[id(child)] > 1)
        if left is not None:
            spiking = isinstance(child, HoyerSpike)
            report.append(Activation(path, place, kind, int(spiking), spiking, left))
            continue
        new, notes = _replacement(parent, name, path, child, act_cfg, places[id(child)])
        setattr(parent, name, new)
        replaced[id(child)] = new
        neurons = len(new) if isinstance(new, SpikePerCall) else 1
        report.append(Activation(path, place, kind, neurons, True, '; '.join(notes)))
    return report


def check_act_cfg(act_cfg: dict[str, Any]) -> None:
    """Make sure that a config is one of a ``HoyerSpike`` for places of any width.

    Raises:
        ValueError: If it is not.
    """
    kind = act_cfg.get('type') if isinstance(act_cfg, dict) else None
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(cls, type) and issubclass(cls, HoyerSpike)):
        raise ValueError(
            f"act_cfg must be the config of a HoyerSpike, dict(type='HoyerSpike', ...), got {act_cfg}"
        )
    if 'num_features' in act_cfg:
        raise ValueError(
            'act_cfg: leave out num_features; the places to convert differ in their number of channels'
        )


def _slots(
    module: nn.Module, prefix: str, seen: set[int] | None = None
) -> Iterator[tuple[nn.Module, str, str, nn.Module | None]]:
    """Yield parent, name, path and module of every activation; each parent first with None."""
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    yield module, '', prefix, None
    # Not `named_children`, which names an instance once.
    for name, child in module._modules.items():
        path = f'{prefix}.{name}' if prefix else name
        if isinstance(child, (HoyerSpike, *RECTIFIERS, *_OTHERS, *_GATES, mmcv_activation.Clamp)):
            yield module, name, path, child
        elif child is not None:
            yield from _slots(child, path, seen)


def _functions(module: nn.Module, path: str) -> list[Activation]:
    """List the activations of a module that are functions and so stay what they are."""
    kind = type(module).__name__
    found = []
    for call in function_calls(module):
        function, _, method = call.partition(' in ')
        note = f'called as a function in {method}'
        found.append(Activation(path, kind, function, 0, False, note))
    for name, value in vars(module).items():
        function = getattr(value, '__name__', None)
        if function in FUNCTIONS and not isinstance(value, nn.Module | type):
            note = 'attribute that holds a function'
            found.append(Activation(path, f'{kind}.{name}', function, 0, False, note))
    return found


def _reason_to_leave(parent: nn.Module, name: str, child: nn.Module, shared: bool) -> str | None:
    """Say why an activation stays; None if it is to be replaced."""
    if isinstance(child, HoyerSpike):
        return 'already spiking'
    if isinstance(child, _NORMALISERS):
        return 'normaliser'
    if isinstance(child, _GATES):
        return 'gate'
    if not isinstance(child, RECTIFIERS):
        return 'no rectifier'
    if isinstance(parent, nn.TransformerEncoderLayer):
        return "torch's fused evaluation would pass it by"
    if not shared and _is_attribute(parent, name) and not is_used(parent, name):
        return f'never called by {type(parent).__name__}'
    return None


def _is_attribute(parent: nn.Module, name: str) -> bool:
    """Tell whether a parent calls a child by its name, as against by its position."""
    return name.isidentifier() and not isinstance(parent, _CONTAINERS)


def _replacement(
    parent: nn.Module,
    name: str,
    path: str,
    child: nn.Module,
    act_cfg: dict[str, Any],
    places: int,
) -> tuple[nn.Module, list[str]]:
    """Build what replaces an activation, and say what is particular about it."""
    act_cfg, notes = dict(act_cfg), []
    calls: Calls | None = Calls(1)
    if places > 1:
        notes.append(f'one neuron for the {places} places of this instance')
    elif _is_attribute(parent, name) and type(parent).forward is not ConvModule.forward:
        calls = count_calls(parent, name)
        if calls is None or calls.number == 0:
            notes.append('one neuron for all its calls, their number cannot be told')
            calls = Calls(1)
        elif calls.repeated:
            notes.append('the same in each round of a loop')
    if act_cfg.get('extremum') == 'channel':
        channels = _channels(parent, name)
        if channels is None:
            notes.append('channels are learned from the first batch')
        elif channels == 0:
            act_cfg['extremum'] = 'layer'
            notes.append("extremum='layer': behind a Linear, dimension 1 may be tokens")
        else:
            act_cfg['num_features'] = channels
    if any(True for _ in child.parameters()):
        notes.append('its own weights are dropped')
    if not child.training:
        notes.append('frozen')

    if calls.number > 1 and getattr(parent, 'with_cp', False):
        raise ValueError(
            f'{path}: with_cp=True would run part of {type(parent).__name__} a second time, out of '
            'the order of its neurons; set with_cp=False'
        )
    neurons = [MODELS.build(act_cfg) for _ in range(calls.number)]
    for neuron in neurons:
        # As it was frozen with its stage: DistributedDataParallel asks before `train()` is called.
        neuron.train(child.training).requires_grad_(child.training)
    if len(neurons) == 1:
        return neurons[0], notes
    label = f'{type(parent).__name__}.{name}'
    sites = SpikePerCall(neurons, parent, label, calls.repeated)
    sites.training = child.training
    return sites, notes


def _channels(parent: nn.Module, name: str) -> int | None:
    """Return the number of channels before an activation, 0 for token layouts, None if unknown."""
    if isinstance(parent, ConvModule):
        first = parent.order.index('act') < parent.order.index('conv')
        return parent.in_channels if first else parent.out_channels
    if isinstance(parent, nn.Sequential):
        before = list(parent)[: list(parent._modules).index(name)]
        for layer in reversed(before):
            if isinstance(layer, _TOKENS):
                return 0
            for attribute in ('out_channels', 'num_features', 'num_channels'):
                if isinstance(layer, _ConvNd | ConvModule) or is_norm(layer):
                    channels = getattr(layer, attribute, None)
                    if channels is not None:
                        return channels
        return None
    children = [
        layer
        for child in parent.children()
        for layer in (child, *(child if isinstance(child, nn.ModuleList | nn.Sequential) else ()))
    ]
    return 0 if any(isinstance(layer, _TOKENS) for layer in children) else None
