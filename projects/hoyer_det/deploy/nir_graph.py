"""Writes the spiking part of a folded network as a graph of the Neuromorphic Intermediate Representation."""

from collections.abc import Sequence
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from ..errors import named
from .fold_norms import SignFlip
from .levels import FiringLevel

_LAYERS = (nn.Conv2d, nn.MaxPool2d, nn.Identity, FiringLevel, SignFlip)
_ADDITIONS = ('add', 'iadd', 'add_')


def to_nir(model: nn.Module, size: Sequence[int], **metadata: Any) -> nir.NIRGraph:
    r"""Write backbone and neck of a folded detector, of which every value is an integer.

    ``Conv2d`` has the integer weights. ``Threshold`` fires above its value, so that a level :math:`T` becomes
    :math:`T - 1/2`. NIR has no max pooling, but the largest of several sums reaches a level where one of
    them does: the neuron stands in front of the pooling, and ``SumPool2d`` with a ``Threshold`` of 1/2
    joins its spikes. Where channels are inverted, a ``Scale`` of -1 stands between the two. Values that
    are added are edges to the same node.

    The input is the image as integers, (3, H, W), less the number ``zero`` in ``metadata``.

    Args:
        model: Detector, or a module of spikes, folded by :func:`hoyer_det.deploy.fold`.
        size: Height and width of the image.
        **metadata: Further entries of the graph's metadata.

    Returns:
        The graph; its outputs ``output_0``, ... are the spikes that the head reads.

    Raises:
        ValueError: Names what cannot be written: real-valued streams, pooling of real values, rounded-up
            pooling, layers of other kinds.
    """
    part = _SpikingPart(model)
    try:
        traced = fx.GraphModule(part, _Tracer().trace(part))
    except Exception as error:  # of whatever kind the code raises on the stand-ins for tensors
        raise ValueError(
            f'nir: {type(model).__name__} hands on more than spikes, or decides by their values, and '
            f'cannot be followed ({named(error)})'
        ) from error
    image = torch.zeros(1, 3, *size, dtype=next(model.parameters()).dtype)
    with torch.no_grad():
        ShapeProp(traced).propagate(image)
    return _Writer(traced).write(metadata)


class _SpikingPart(nn.Module):
    """Backbone and neck of a detector, or another module as it is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone = getattr(model, 'backbone', model)
        self.neck = getattr(model, 'neck', None) if hasattr(model, 'backbone') else None

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone(image)
        return features if self.neck is None else self.neck(features)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep layers whole."""
        return isinstance(m, _LAYERS) or super().is_leaf_module(m, module_qualified_name)


class _Value:
    """What a node of the traced graph hands on.

    Attributes:
        sources: Nodes of the NIR graph whose outputs are added up.
        shape: (C, H, W).
        spikes: Whether it is 0 or 1.
        pools: Max poolings of real values that wait for a neuron, with the shapes behind them.
    """

    def __init__(self, sources: list[str], shape: Sequence[int], spikes: bool = False) -> None:
        self.sources, self.shape, self.spikes = sources, tuple(shape), spikes
        self.pools: list[tuple[str, nn.MaxPool2d, tuple[int, ...]]] = []


class _Writer:
    """The work of :func:`to_nir`."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []

    def write(self, metadata: dict[str, Any]) -> nir.NIRGraph:
        """Go through the traced graph."""
        values: dict[fx.Node, _Value] = {}
        for node in self.traced.graph.nodes:
            if node.op == 'output':
                outputs = [values[item] for item in _flat(node.args[0])]
                break
            shape = tuple(node.meta['tensor_meta'].shape[1:])
            if node.op == 'placeholder':
                self._add('input', nir.Input(np.array(shape)), [])
                values[node] = _Value(['input'], shape)
            elif node.op == 'call_module':
                layer = self.traced.get_submodule(node.target)
                values[node] = self._layer(node.target, layer, values[node.args[0]], shape)
            elif getattr(node.target, '__name__', node.target) in _ADDITIONS and all(
                isinstance(item, fx.Node) for item in node.args
            ):
                terms = [values[item] for item in node.args]
                for term in terms:
                    self._refuse_pooled(node.name, term)
                values[node] = _Value([s for term in terms for s in term.sources], shape)
            else:
                raise ValueError(f'nir: {node.name}: cannot be written as a node of NIR')
        for number, value in enumerate(outputs):
            if not value.spikes:
                raise ValueError(f'nir: output {number} is no spikes; only spikes are handed out')
            self._add(f'output_{number}', nir.Output(np.array(value.shape)), value.sources)
        return nir.NIRGraph(self.nodes, self.edges, metadata=metadata)

    def _layer(self, name: str, layer: nn.Module, value: _Value, shape: tuple[int, ...]) -> _Value:
        if isinstance(layer, nn.Identity):
            return value
        if isinstance(layer, FiringLevel):
            return self._fire(name, layer, value, shape)
        if isinstance(layer, nn.MaxPool2d):
            if value.spikes:
                return self._join(name, layer, value, shape)
            pooled = _Value(value.sources, value.shape)
            pooled.pools = [*value.pools, (name, layer, shape)]
            return pooled
        self._refuse_pooled(name, value)
        if not isinstance(layer, nn.Conv2d) or layer.padding_mode != 'zeros':
            raise ValueError(f'nir: {name}: {type(layer).__name__} cannot be written')
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()
        conv = nir.Conv2d(
            input_shape=value.shape[1:],
            weight=layer.weight.detach().numpy(),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=bias.numpy(),
        )
        return _Value([self._add(name, conv, value.sources)], shape)

    def _fire(
        self, name: str, neuron: FiringLevel, value: _Value, shape: tuple[int, ...]
    ) -> _Value:
        if not neuron.integer:
            raise ValueError(
                f'nir: {name}: reads real values (a residual stream, or a layer that is not folded); only '
                'networks whose neurons read integer sums can be written'
            )
        sums = _Value(value.sources, value.shape)
        spikes = self._threshold(name, sums, neuron.level - 0.5)
        for pool_name, pool, pooled_shape in value.pools:
            spikes = self._join(pool_name, pool, spikes, pooled_shape)
        if not bool(neuron.invert.any()):
            return spikes
        sign = 1 - 2 * neuron.invert.to(neuron.level.dtype)
        scale = nir.Scale(_spread(sign, shape))
        turned = _Value([self._add(f'{name}.sign', scale, spikes.sources)], shape)
        return self._threshold(f'{name}.inverted', turned, sign / 2)

    def _join(self, name: str, pool: nn.MaxPool2d, value: _Value, shape: tuple[int, ...]) -> _Value:
        """Write the max pooling of spikes."""
        kernel, stride, padding = (
            np.array((number, number) if isinstance(number, int) else number)
            for number in (pool.kernel_size, pool.stride, pool.padding)
        )
        down = (np.array(value.shape[1:]) + 2 * padding - kernel) // stride + 1
        if pool.dilation not in (1, (1, 1)) or tuple(down) != shape[1:]:
            raise ValueError(
                f'nir: {name}: pooling with dilation, or rounded up (ceil_mode) from '
                f'{value.shape[1:]} to {shape[1:]}, cannot be written; another size of the image may do'
            )
        added = self._add(name, nir.SumPool2d(kernel, stride, padding), value.sources)
        return self._threshold(f'{name}.any', _Value([added], shape), torch.tensor([0.5]))

    def _threshold(self, name: str, value: _Value, above: Tensor) -> _Value:
        node = nir.Threshold(_spread(above, value.shape))
        return _Value([self._add(name, node, value.sources)], value.shape, spikes=True)

    def _refuse_pooled(self, name: str, value: _Value) -> None:
        if value.pools:
            raise ValueError(
                f'nir: {name}: reads max pooling of real values ({value.pools[0][0]}), which NIR does not '
                'have; only pooling in front of a neuron, or of spikes, can be written'
            )

    def _add(self, name: str, node: nir.NIRNode, sources: list[str]) -> str:
        if name in self.nodes or len(set(sources)) < len(sources):
            raise ValueError(f'nir: {name}: runs several times, or adds a value to itself')
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name


def _spread(values: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Return one number for each neuron of (C, H, W)."""
    return np.ascontiguousarray(values.view(-1, 1, 1).expand(shape).float().numpy())


def _flat(items: Any) -> list[fx.Node]:
    return (
        [items] if isinstance(items, fx.Node) else [node for item in items for node in _flat(item)]
    )
