"""Counts every convolution and matrix product of a network from what it really reads."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..kernels import plain_kernels
from ..spiking import HoyerSpike, LIFSpike

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Mish)
# Sums of a few spikes, as a residual of spikes makes them, are whole numbers up to here.
LARGEST_COUNT = 16

aten = torch.ops.aten
# Operators that multiply by weights or by one another and whose operations cannot be told from
# their arguments; by the name of the operator, the reason.
_NOT_COUNTED = {
    'torchvision::deform_conv2d': 'deformable convolution: reads interpolated inputs',
    'aten::_scaled_dot_product_flash_attention_for_cpu': 'fused attention',
    'aten::_scaled_dot_product_flash_attention': 'fused attention',
    'aten::_scaled_dot_product_efficient_attention': 'fused attention',
    'aten::_scaled_dot_product_cudnn_attention': 'fused attention',
    'aten::_native_multi_head_attention': 'fused attention',
    'aten::_transformer_encoder_layer_fwd': 'fused transformer layer',
    'aten::mkldnn_rnn_layer': 'recurrent layer',
    'aten::_cudnn_rnn': 'recurrent layer',
    'aten::addmv': 'product of a matrix and a vector',
    'aten::dot': 'product of two vectors',
}


@dataclass
class LayerOperations:
    """Operations of one layer, summed over the images it has seen.

    Attributes:
        name: Dotted name of the layer; the operator is added where it is not the layer's own.
        kind: ``'convolution'``, ``'linear'``, ``'matmul'`` or ``'addition'`` (of feature maps).
        images: Number of images that the network has seen.
        calls: How often the layer ran, over all images.
        dense: Multiply-accumulates of the dense layer, padding included, as FLOP counters count.
        effective: Those whose input is not 0.
        additions: Additions of two feature maps, element by element (``'addition'`` alone).
        inputs: Elements read.
        active: Those that are not 0.
        input_kind: What all inputs were: ``'binary'`` (exactly 0 or 1), ``'count'`` (whole numbers from
            0 to 16) or ``'real'``.
        weights: Elements of the weights and biases.
        written_spikes: Outputs that leave through a neuron, as spikes.
        written_real: Outputs that leave as numbers.
        potentials: Membrane potentials that the leaky neurons behind it keep from one time step to the
            next; each is written and read once.
        densities: Share of active inputs, an entry for each image in which the layer ran.
        unpooled: Elements, and those that are not 0, before the max pooling that the inputs come
            from; 0 where there was none.
    """

    name: str
    kind: str
    images: int = 0
    calls: int = 0
    dense: int = 0
    effective: int = 0
    additions: int = 0
    inputs: int = 0
    active: int = 0
    input_kind: str = 'binary'
    weights: int = 0
    written_spikes: int = 0
    written_real: int = 0
    potentials: int = 0
    densities: list[float] = field(default_factory=list)
    unpooled: tuple[int, int] = (0, 0)

    @property
    def density_before_pooling(self) -> float | None:
        """Share of active elements before the max pooling of the inputs; None where there is none."""
        elements, active = self.unpooled
        return active / elements if elements else None

    @property
    def accumulates(self) -> int:
        """Additions of a weight: the effective operations of a layer that read 0 and 1 alone."""
        return self.effective if self.input_kind == 'binary' else 0

    @property
    def multiply_accumulates(self) -> int:
        """Multiply-accumulates that remain: all dense ones of any other layer."""
        return 0 if self.input_kind == 'binary' else self.dense


class OperationCounter(TorchDispatchMode):
    """Counts the operations of a network while it runs, operator by operator.

    It watches the operators that PyTorch executes, not the types of the modules, so functional
    convolutions and matrix products are counted like layers. An operation belongs to the innermost
    module that runs at the time. Run it without gradients::

        counter = OperationCounter(model)
        for batch in batches:
            with torch.no_grad(), counter.image():
                model.test_step(batch)
        counter.layers, counter.not_counted, counter.not_run

    Args:
        model: Network in evaluation mode.

    Attributes:
        layers: One entry for each layer that ran, in the order of execution.
        not_counted: Name of a layer or operator that ran and could not be counted, and why.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._running: list[tuple[str, nn.Module]] = [('', model)]
        self._entries: dict[str, LayerOperations] = {}
        self._weights: dict[str, set[int | torch.Size]] = {}
        self._parameters: set[int] = set()
        self._computed: dict[int, Tensor] = {}
        self._images = 0
        self._this_image: dict[str, list[int]] = {}
        self._pooled: list[tuple[Tensor, int, int]] = []
        self._last: LayerOperations | None = None
        self._unwritten = 0
        self._ran: set[str] = set()
        self._counted: set[str] = set()
        self._used: set[int] = set()
        self._blind: dict[str, str] = {}

    @contextmanager
    def image(self) -> Iterator[None]:
        """Count what runs inside as one image."""
        self._images += 1
        self._this_image = {}
        own = (*self._model.parameters(), *self._model.buffers())
        self._parameters = {_storage(tensor) for tensor in own}
        with plain_kernels(self._model), ExitStack() as hooks:
            for name, module in self._model.named_modules():
                if name:
                    hooks.enter_context(module.register_forward_pre_hook(self._begin(name)))
                    hooks.enter_context(module.register_forward_hook(self._end, always_call=True))
            with self:
                yield
        self._write_real()
        self._last, self._pooled, self._computed = None, [], {}
        for name, (active, inputs) in self._this_image.items():
            self._entries[name].densities.append(active / max(inputs, 1))
        for entry in self._entries.values():
            entry.images = self._images

    @property
    def layers(self) -> list[LayerOperations]:
        """One entry for each layer that ran."""
        return list(self._entries.values())

    @property
    def not_counted(self) -> dict[str, str]:
        """What ran with weights of its own, or multiplied, and is in no count, with the reason."""
        found = dict(self._blind)
        for name in self._uncounted():
            inner = any(key == name or key.startswith(f'{name}.') for key in self._blind)
            if name in self._ran and not inner:
                kind = type(self._model.get_submodule(name)).__name__
                found[name] = f'{kind}: no convolution or matrix product of it was seen'
        return found

    @property
    def not_run(self) -> list[str]:
        """Layers with weights that no image needed."""
        return [name for name in self._uncounted() if name not in self._ran]

    def _uncounted(self) -> list[str]:
        """Layers with weights of which none was seen in an operator."""
        return [
            name
            for name, weights in _with_weights(self._model).items()
            if name not in self._counted and not any(_storage(w) in self._used for w in weights)
        ]

    def _begin(self, name: str) -> Callable:
        def begin(module: nn.Module, inputs: tuple) -> None:
            self._running.append((name, module))
            self._ran.add(name)
            if self._last is None:
                return
            if isinstance(module, HoyerSpike | LIFSpike):
                outputs = inputs[0].numel()
                self._last.written_spikes += outputs
                if isinstance(module, LIFSpike):
                    self._last.potentials += outputs - outputs // module.steps
                if self._last.kind != 'addition':  # a sum of maps is kept for the next one
                    self._unwritten = 0
            elif isinstance(module, _ACTIVATIONS) and self._unwritten:
                self._unwritten = inputs[0].numel()  # after the pooling, if there was one

        return begin

    def _end(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        if len(self._running) > 1 and self._running[-1][1] is module:
            self._running.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name
        if name in _NOT_COUNTED:
            layer = self._running[-1][0]
            self._blind[layer or name] = f'{name}: {_NOT_COUNTED[name]}'
            self._counted.add(layer)
            self._used |= {_storage(x) for x in _tensors(args)}
        elif func in (aten.add.Tensor, aten.add_.Tensor):
            self._add(args[0], args[1], out)
        elif func in _RULES:
            self._count(_RULES[func](args, out))
        elif 'max_pool' in name:
            pooled = out[0] if isinstance(out, tuple) else out
            self._pooled.append((pooled, args[0].numel(), int(torch.count_nonzero(args[0]))))
        self._follow(_tensors((args, kwargs)), out)
        return out

    def _follow(self, read: list[Tensor], out: Any) -> None:
        """Remember what is computed from weights and single numbers, as a normalised kernel is."""
        read = [x for x in read if x.dim() and x.numel()]
        if read and self._are_weights(read):
            # Kept until the image is done: their memory would go to other tensors.
            self._computed.update((_storage(x), x) for x in _tensors(out))
        else:
            for x in _tensors(out):  # what is written in place is of weights alone no more
                self._computed.pop(_storage(x), None)

    def _are_weights(self, tensors: list[Tensor]) -> bool:
        storages = {_storage(x) for x in tensors}
        return storages <= self._parameters | self._computed.keys()

    def _count(self, product: '_Product') -> None:
        self._write_real()
        name, module = self._running[-1]
        own = getattr(module, 'weight', None)
        is_own = isinstance(own, Tensor) and product.reads_weight(own)
        entry = self._entry(name if is_own else f'{name}:{product.kind}', product.kind)
        self._counted.add(name)
        entry.dense += product.dense
        entry.effective += product.effective
        self._read(entry, product.read)
        for pooled, elements, active in self._pooled:
            if pooled is product.read:
                entry.unpooled = entry.unpooled[0] + elements, entry.unpooled[1] + active
        weight = product.weight
        computed = product.kind == 'convolution' and self._are_weights([weight])
        if is_own or computed or _storage(weight) in self._parameters:
            self._count_weights(entry, weight, product.bias)
        else:
            # A product of two activations, or a kernel that the network predicts.
            self._read(entry, weight)
        self._last, self._unwritten = entry, product.outputs

    def _count_weights(self, entry: LayerOperations, weight: Tensor, bias: int = 0) -> None:
        storage = _storage(weight)
        # Views of one parameter are apart; what is computed anew for each call is known by its shape.
        key = weight.data_ptr() if storage in self._parameters else weight.shape
        seen = self._weights.setdefault(entry.name, set())
        if key not in seen:
            seen.add(key)
            entry.weights += weight.numel() + bias
        self._used.add(storage)

    def _add(self, x: Any, y: Any, out: Tensor) -> None:
        name, module = self._running[-1]
        if isinstance(module, LIFSpike):  # its potentials are counted where it begins
            return
        layer = self._last and self._last.name.partition(':')[0]
        # Where its input is not contiguous, a linear layer adds the bias apart.
        if layer == name and isinstance(y, Tensor) and y is getattr(module, 'bias', None):
            self._count_weights(self._last, y)
        elif _is_map(x) and _is_map(y) and x.shape == y.shape and not self._are_weights([x, y]):
            self._count_addition(y, out)

    def _count_addition(self, other: Tensor, out: Tensor) -> None:
        # The other operand comes straight from the layer before: that one writes nothing itself.
        self._unwritten = 0
        entry = self._entry(f'{self._running[-1][0]}:add', 'addition')
        entry.additions += out.numel()
        self._read(entry, other)
        self._last, self._unwritten = entry, out.numel()

    def _entry(self, name: str, kind: str) -> LayerOperations:
        entry = self._entries.setdefault(name, LayerOperations(name, kind))
        entry.calls += 1
        return entry

    def _read(self, entry: LayerOperations, x: Tensor) -> None:
        active = int(torch.count_nonzero(x))
        entry.inputs += x.numel()
        entry.active += active
        entry.input_kind = max(entry.input_kind, _kind(x), key=_KINDS.index)
        both = self._this_image.setdefault(entry.name, [0, 0])
        both[0] += active
        both[1] += x.numel()

    def _write_real(self) -> None:
        if self._last is not None:
            self._last.written_real += self._unwritten
        self._unwritten = 0


_KINDS = ('binary', 'count', 'real')


def _kind(x: Tensor) -> str:
    """Tell what the entries of a tensor are, by looking at each of them."""
    if x.dtype == torch.bool or bool(torch.all((x == 0) | (x == 1))):
        return 'binary'
    whole = (x >= 0) & (x <= LARGEST_COUNT) & (x == x.round())
    return 'count' if bool(torch.all(whole)) else 'real'


def _is_map(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dim() == 4 and x.is_floating_point()


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _storage(x: Tensor) -> int:
    """Address of the memory of a tensor, the same for all its views."""
    return x.untyped_storage().data_ptr()


def _with_weights(model: nn.Module) -> dict[str, list[Tensor]]:
    """Weights of two or more dimensions by the name of the module that holds them."""
    found: dict[str, list[Tensor]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        if weight.dim() > 1:
            # What a parametrization computes a weight from belongs to the layer of that weight.
            layer = re.sub(r'(^|\.)parametrizations\..*', r'\1weight', name).rpartition('.')[0]
            found.setdefault(layer, []).append(weight)
    return found


@dataclass
class _Product:
    """One convolution or matrix product."""

    kind: str
    read: Tensor
    weight: Tensor
    bias: int
    dense: int
    effective: int
    outputs: int

    def reads_weight(self, own: Tensor) -> bool:
        """Tell whether it multiplies by a layer's weight, which may be computed anew for each call."""
        weight = self.weight
        if own.data_ptr() == weight.data_ptr():
            return True
        if self.kind == 'convolution':
            return own.shape == weight.shape
        return own.dim() == 2 and own.T.shape == weight.shape and torch.equal(own.T, weight)


def _convolution(args: tuple, out: Tensor) -> _Product:
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args[:9]
    # Each input of a transposed convolution meets the taps that each output of a plain one meets.
    places = x.numel() if transposed else out.numel()
    # One filter of ones a group counts the active taps; all filters of a group count the same.
    if transposed:
        filters, shape = weight.shape[1], (weight.shape[0], 1)
    else:
        filters, shape = weight.shape[0] // groups, (groups, weight.shape[1])
    ones = weight.new_ones((*shape, *weight.shape[2:]), dtype=torch.float32)
    active = (x != 0).to(torch.float32)
    taps = aten.convolution(
        active, ones, None, stride, padding, dilation, transposed, output_padding, groups
    )
    return _Product(
        'convolution',
        x,
        weight,
        0 if bias is None else bias.numel(),
        places * weight[0].numel(),
        # Not every algorithm of a convolution adds up exactly (Winograd, FFT).
        int(taps.round().sum(dtype=torch.float64)) * filters,
        out.numel(),
    )


def _matrix_product(kind: str, read: int, weight: int) -> Callable[[tuple, Tensor], _Product]:
    def rule(args: tuple, out: Tensor) -> _Product:
        x, y = args[read], args[weight]
        columns = y.shape[-1] if y.dim() > 1 else 1
        bias = args[0].numel() if read == 1 and kind == 'linear' else 0
        active = int(torch.count_nonzero(x))
        return _Product(kind, x, y, bias, x.numel() * columns, active * columns, out.numel())

    return rule


_RULES: dict[Any, Callable[[tuple, Tensor], _Product]] = {
    aten.convolution.default: _convolution,
    aten.mm.default: _matrix_product('linear', 0, 1),
    aten.mv.default: _matrix_product('linear', 0, 1),
    aten.addmm.default: _matrix_product('linear', 1, 2),
    aten.bmm.default: _matrix_product('matmul', 0, 1),
    aten.baddbmm.default: _matrix_product('matmul', 1, 2),
}
