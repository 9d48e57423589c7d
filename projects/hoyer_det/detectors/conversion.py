"""Replaces the activations of a network by spiking neurons."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mmcv.cnn.bricks.activation as mmcv_activation
from mmcv.cnn import HSigmoid, HSwish, Swish
from mmdet.registry import MODELS
from torch import nn

from ..spiking import HoyerSpike
from .forward_trace import ForwardTrace, Use
from .per_call import SpikePerCall

RECTIFIERS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU),
    *(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, HSwish, Swish, mmcv_activation.GELU),
)
ACTIVATIONS = (HoyerSpike, *RECTIFIERS)
_NORMALISERS = (nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.Softmax2d)
_GATES = (nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.GLU, HSigmoid)
_OTHERS = tuple(
    value
    for name in nn.modules.activation.__all__
    if (value := getattr(nn, name)) is not nn.MultiheadAttention
)


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
    model: nn.Module, act_cfg: dict[str, Any], trace: ForwardTrace, parts: Sequence[str] = ('',)
) -> list[Activation]:
    """Put a ``HoyerSpike`` in the place of every rectifying activation in parts of a model.

    Rectifying are ReLU and its relatives up to GELU, SiLU and Swish. Gates and normalisers (sigmoid,
    tanh, softmax, ...) are left, and so are activations that are called as a function and those that
    no forward pass reached.

    An activation that runs several times in a forward pass, as in a residual block or in a head that
    goes through feature levels, becomes a :class:`SpikePerCall` with a neuron for each time; so does a
    ``HoyerSpike`` that is already there. One neuron serves all applications where their number differs
    between training and prediction, or where they share no module that runs once.

    With ``extremum='channel'`` a neuron is told its number of channels. It becomes
    ``extremum='layer'`` where dimension 1 is not channels: on inputs of fewer than 4 dimensions, and
    where its size follows the image. The list says so.

    Args:
        model: Changed in place.
        act_cfg: Config of the neuron.
        trace: Forward passes of the model, for :data:`ACTIVATIONS`.
        parts: Names of the parts; the whole model by default.

    Returns:
        What became of each activation, in the order of the tree.

    Raises:
        ValueError: If ``act_cfg`` is no ``HoyerSpike``, or a block would run part of itself a second
            time (``with_cp=True``).
    """
    check_act_cfg(act_cfg)
    names = {id(module): name for name, module in model.named_modules()}
    never = 'never called in a forward pass'
    never += ''.join(f'; one ended by {type(error).__name__}' for error in trace.errors)
    report: list[Activation] = []
    replaced: dict[int, nn.Module] = {}
    slots = (slot for part in parts for slot in _slots(model.get_submodule(part), part))
    for parent, name, path, child in slots:
        if child is None:
            kind = type(parent).__name__
            report += [
                Activation(path, kind, function, 0, False, 'called as a function')
                for inside, function in trace.functions
                if inside == path
            ]
            continue
        place = f'{type(parent).__name__}.{name}' if name.isidentifier() else type(parent).__name__
        kind = type(child).__name__
        if id(child) in replaced:
            setattr(parent, name, replaced[id(child)])
            report.append(Activation(path, place, kind, 0, True, 'shared, see above'))
            continue
        use = trace.use(names[id(child)]) if id(child) in names else None
        left = _reason_to_leave(parent, child, use, never)
        if left is not None:
            spiking = isinstance(child, HoyerSpike)
            report.append(Activation(path, place, kind, int(spiking), spiking, left))
            continue
        neurons, notes = _neurons(child, act_cfg, use)
        new: nn.Module = neurons[0]
        if len(neurons) > 1:
            frame = model.get_submodule(use.frame)
            if any(getattr(model.get_submodule(n), 'with_cp', False) for n in use.inside):
                raise ValueError(
                    f'{path}: with_cp=True would run part of {type(frame).__name__} a second time, '
                    'out of the order of its neurons; set with_cp=False'
                )
            new = SpikePerCall(neurons, frame, place)
            new.training = child.training
            if frame is not parent:
                notes.append(f'a neuron for each application in {type(frame).__name__}')
        setattr(parent, name, new)
        replaced[id(child)] = new
        report.append(Activation(path, place, kind, len(neurons), True, '; '.join(notes)))
    return report


def rectifiers(model: nn.Module, parts: Sequence[str]) -> list[str]:
    """Return the names of the activations in parts of a model that can be converted."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, RECTIFIERS)
        and any(f'{name}.'.startswith(f'{part}.') for part in parts)
    ]


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


def _reason_to_leave(
    parent: nn.Module, child: nn.Module, use: Use | None, never: str
) -> str | None:
    """Say why an activation stays; None if it is to be replaced."""
    if isinstance(child, HoyerSpike):
        return 'already spiking' if use is None or len(use.shapes) == 1 else None
    if isinstance(child, _NORMALISERS):
        return 'normaliser'
    if isinstance(child, _GATES):
        return 'gate'
    if not isinstance(child, RECTIFIERS):
        return 'no rectifier'
    if isinstance(parent, nn.TransformerEncoderLayer):
        return "torch's fused evaluation would pass it by"
    return never if use is None else None


def _neurons(
    child: nn.Module, act_cfg: dict[str, Any], use: Use
) -> tuple[list[HoyerSpike], list[str]]:
    """Build what replaces an activation, and say what is particular about it."""
    notes = []
    if len(use.shapes) == 1 and use.total > 1:
        notes.append(f'one neuron for its {use.total} applications')
    if isinstance(child, HoyerSpike):
        return [copy.deepcopy(child) for _ in use.shapes], notes
    neurons = []
    for shapes in use.shapes:
        cfg = dict(act_cfg)
        if cfg.get('extremum') == 'channel':
            channels = {shape[1] if len(shape) > 3 else None for shape in shapes}
            cfg['num_features'] = channels.pop()
            if channels or cfg['num_features'] is None:
                cfg.update(extremum='layer', num_features=None)
                notes.append("extremum='layer': dimension 1 of its input is not channels")
        neuron = MODELS.build(cfg)
        # As it was frozen with its stage: DistributedDataParallel asks before `train()` is called.
        neurons.append(neuron.train(child.training).requires_grad_(child.training))
    if any(True for _ in child.parameters()):
        notes.append('its own weights are dropped')
    if not child.training:
        notes.append('frozen')
    return neurons, list(dict.fromkeys(notes))
