"""Finds convolutions, norms and neurons that compute one behind the other."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from mmcv.cnn import Conv2d, ConvModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..backbones.blocks import SpikingSequential
from ..backbones.resnet import SpikingBasicBlock, SpikingBottleneck
from ..backbones.shortcut import ShortcutConvBlock
from ..detectors.per_call import SpikePerCall
from ..kernels import SpikeConv2d
from ..spiking import HoyerSpike

# Convolutions whose weight is used as it stands; weight standardisation, for one, would undo a scale.
_CONVS = (nn.Conv2d, Conv2d, SpikeConv2d)
_SEQUENTIAL = (nn.Sequential.forward, SpikingSequential.forward)


class Slot(NamedTuple):
    """Where a layer is kept: the module that holds it, and its name there."""

    owner: nn.Module
    name: str

    @property
    def layer(self) -> nn.Module:
        """The layer."""
        return getattr(self.owner, self.name)

    def put(self, layer: nn.Module) -> None:
        """Keep another layer there."""
        setattr(self.owner, self.name, layer)


class Place(NamedTuple):
    """Layers that compute one behind the other; None where there is none.

    The order is convolution -> [max pooling] -> norm -> neuron.

    Attributes:
        conv: Convolution.
        norm: Batch norm.
        act: ``HoyerSpike``, or ``SpikePerCall`` of them.
        pooled: Whether a max pooling stands between convolution and norm (or neuron).
    """

    conv: Slot | None
    norm: Slot | None
    act: Slot | None
    pooled: bool = False


def find_places(model: nn.Module) -> Iterator[Place]:
    """Yield what computes one behind the other in the structures whose order is known.

    They are those of ``HoyerVGG``, ``HoyerResNet``, the necks and heads of this package, sequences, and
    every ``ConvModule`` in the order convolution, norm, activation. A layer that cannot be folded
    (another norm than batch norm, a convolution with weight standardisation) ends a place.
    """
    done: set[nn.Module] = set()
    for module in model.modules():
        if module in done:
            continue
        if isinstance(module, ConvModule):
            chains = _in_conv_module(module)
        elif isinstance(module, ShortcutConvBlock):  # the neuron reads the sum with the stream
            names = [name for name in ('conv', 'pool', 'norm') if hasattr(module, name)]
            chains = _slots(module, names, ['act'])
        elif isinstance(module, nn.Sequential) and type(module).forward in _SEQUENTIAL:
            chains = [_in_sequence(module, done)]
        elif isinstance(module, SpikingBasicBlock):
            chains = _slots(module, ['act'], ['conv', 'norm'])
        elif isinstance(module, SpikingBottleneck):
            numbers = ('norm1', 'act1'), ('conv1', 'norm2', 'act2'), ('conv2', 'norm3', 'act3')
            chains = _slots(module, *numbers, ['conv3'])
        else:
            continue
        for chain in chains:
            yield from _in_chain(chain)


def _slots(owner: nn.Module, *chains: Sequence[str]) -> list[list[Slot]]:
    return [[Slot(owner, name) for name in chain] for chain in chains]


def _in_sequence(module: nn.Sequential, done: set[nn.Module]) -> list[Slot]:
    """Return the layers of a sequence, with those of a ``ConvModule`` without activation among them."""
    chain: list[Slot] = []
    for name, layer in module.named_children():
        inner = _in_conv_module(layer) if isinstance(layer, ConvModule) else []
        if inner and not layer.with_activation and layer.order == ('conv', 'norm', 'act'):
            done.add(layer)
            chain += inner[0]
        else:
            chain.append(Slot(module, name))
    return chain


def _in_chain(chain: list[Slot]) -> Iterator[Place]:
    """Cut layers that run in a row into places."""
    rest = list(chain)

    def take(fits: Callable[[nn.Module], bool]) -> Slot | None:
        return rest.pop(0) if rest and fits(rest[0].layer) else None

    while rest:
        conv = take(is_plain_conv)
        pooled = conv is not None and _pool_before_norm_or_neuron(rest)
        if pooled:
            rest.pop(0)
        norm = take(is_foldable_norm)
        act = take(lambda layer: isinstance(layer, HoyerSpike | SpikePerCall))
        if conv or norm or act:
            yield Place(conv, norm, act, pooled)
        else:
            rest.pop(0)


def _pool_before_norm_or_neuron(chain: list[Slot]) -> bool:
    if len(chain) < 2:
        return False
    pool, behind = chain[0].layer, chain[1].layer
    plain = isinstance(pool, nn.MaxPool2d) and not pool.return_indices
    return plain and (is_foldable_norm(behind) or isinstance(behind, HoyerSpike))


def _in_conv_module(module: ConvModule) -> list[list[Slot]]:
    if module.order != ('conv', 'norm', 'act'):
        follows = module.order.index('norm') == 1 + module.order.index('conv')
        return _slots(module, ['conv', module.norm_name]) if follows and module.with_norm else []
    if module.efficient_conv_bn_eval_forward is not None:
        return []
    names = ['conv']
    if module.with_norm:
        names.append(module.norm_name)
    if module.with_activation:
        names.append('activate')
    return _slots(module, names)


def is_plain_conv(module: nn.Module) -> bool:
    """Tell whether a module is a convolution whose weight is used as it stands."""
    return type(module) in _CONVS and 'weight' in module._parameters  # no spectral norm or pruning


def is_foldable_norm(module: nn.Module) -> bool:
    """Tell whether a module is a batch norm with running statistics."""
    return isinstance(module, _BatchNorm) and module.running_mean is not None
