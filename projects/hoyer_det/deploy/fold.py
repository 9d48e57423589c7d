"""Folds a trained network into integer weights and firing levels."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from mmcv.cnn import is_norm
from torch import Tensor, nn

from ..spiking import HoyerSpike
from .fold_norms import fold_norm, norm_affine
from .image_input import ImageInput
from .levels import (
    UNREACHED,
    FiringLevel,
    firing_potential,
    integer_level,
    real_level,
    replace_neurons,
)
from .places import Place, Slot, find_places, is_plain_conv
from .reads import REAL, Reading, find_readings
from .rounded_conv import use_plain_convs
from .rounding import BITS, integer_steps, largest_weight, round_weights, stream_grid, streams

STEM_LARGEST = 64  # a sum of two products with uint8 stays in int16, which CPUs without VNNI need
STEM_LIMIT = 2**24
HEADS = ('bbox_head', 'rpn_head', 'roi_head')
_BITS = 8
_HEAD_BITS = 8
_FP32_STEM_BITS = 12
_READS = {'image': 'reads the image', 'spikes': 'reads spikes', 'real': 'reads real values'}


@dataclass(frozen=True)
class FoldedLayer:
    """What became of one layer.

    Attributes:
        name: Dotted name of the convolution, or of the layer that stayed.
        kind: ``'integer'``: integer weights and a neuron on their sums. ``'rounded'``: rounded weights
            with real-valued sums. ``'float'``: as it was.
        bits: Of each weight, 32 for float.
        note: Why it is not an integer layer.
    """

    name: str
    kind: Literal['integer', 'rounded', 'float']
    bits: int
    note: str = ''


def fold(
    model: nn.Module,
    weights: int | None = None,
    stem: Literal['int8', 'fp32'] = 'int8',
    heads: Literal['int8', 'fp32'] = 'int8',
    size: tuple[int, int] | None = None,
) -> nn.Module:
    r"""Return a copy in evaluation mode of integer weights and firing levels.

    Convolution -> [max pooling] -> batch norm -> ``HoyerSpike`` becomes a convolution whose weights are
    integers, the pooling, and a comparison (:class:`FiringLevel`). With :math:`\theta` the potential in
    front of the norm at which the neuron fires and :math:`s` the step of an output channel, it fires
    where the integer sum reaches :math:`T = \lceil\theta / s\rceil`. Where the scale of the norm is
    negative, the signs of the weights are turned; behind a pooling instead
    :math:`T = \lfloor\theta / s\rfloor + 1` and the outcome is inverted. No sum leaves int16.

    Values between layers are 0 and 1, and all sums integers, so every engine computes the same spikes.
    A residual stream (``HoyerResNet``, ``HoyerFPN``) stays real-valued: its convolutions get rounded
    weights in steps of a power of 2 times an integer, with which float32 sums are exact as well, and
    neurons that read it take the norm in front of them into their levels. Read-outs of heads get rounded
    weights per channel. What stays in float is said in ``model.folded_layers``.

    The mean of the image becomes one integer for all channels, which is what the borders are padded
    with; the rest of the normalisation goes into weights and levels.

    Args:
        model: Detector, classifier or part of one; it stays as it is.
        weights: Bits of each weight, 2 to 8; by default 8, or those that a :class:`RoundedConv2d` was
            trained with. A stem that reads the image has 8 (up to 64) in any case.
        stem: ``'fp32'``: 12 bits for the convolution that reads the image, computed in float32.
        heads: ``'int8'``: weights of read-outs in heads are rounded to 8 bits; ``'fp32'``: left.
        size: Height and width of an image to run once, see :func:`find_readings`.

    Returns:
        The copy, with an attribute ``folded_layers``, a list of :class:`FoldedLayer`. A detector's
        ``data_preprocessor`` fits the new stem, so that it is used as before.

    Raises:
        ValueError: If the number of bits is out of range or not that of the training, or the model has no
            ``HoyerSpike``.

    Example:
        >>> from hoyer_det.backbones import HoyerVGG
        >>> folded = fold(HoyerVGG(11))
        >>> [type(layer).__name__ for layer in folded.stages[1][0]]
        ['SpikeConv2d', 'LeanMaxPool2d', 'Identity', 'FiringLevel']
    """
    if weights is not None and weights not in BITS:
        raise ValueError(f'fold: weights={weights} bits; possible are {BITS[0]} to {BITS[-1]}')
    model = copy.deepcopy(model).requires_grad_(False)
    model.eval()  # returns None for Darknet
    if not any(isinstance(module, HoyerSpike) for module in model.modules()):
        raise ValueError(f'fold: {type(model).__name__} has no HoyerSpike')
    use_plain_convs(model, weights)
    return _Fold(model, weights, stem, heads, size).run()


class _Fold:
    """The work of :func:`fold`, in place."""

    def __init__(
        self,
        model: nn.Module,
        weights: int | None,
        stem: str,
        heads: str,
        size: tuple[int, int] | None,
    ) -> None:
        self.model = model
        self.bits = weights or _BITS
        self.stem_bits = 8 if stem == 'int8' else _FP32_STEM_BITS
        self.head_bits = _HEAD_BITS if heads == 'int8' else None
        self.layers: list[FoldedLayer] = []
        self.names = {module: name for name, module in model.named_modules()}
        self.places = list(find_places(model))
        known = {place.conv.layer for place in self.places if place.conv}
        for owner, name, conv in _children(model, nn.Conv2d):
            if is_plain_conv(conv) and conv not in known:
                self.places.append(Place(Slot(owner, name), None, None))
                known.add(conv)
        self.readings = find_readings(model, size)
        first = [layer for layer, reading in self.readings.items() if reading.kind == 'image']
        self.image = ImageInput(model, bool(first) and known.issuperset(first))
        if not self.image.folded:
            self.readings.update(dict.fromkeys(first, REAL))
        self.exact: set[nn.Module] = set()  # what calls neurons that read a stream without rounding

    def run(self) -> nn.Module:
        """Fold."""
        real = [place for place in self.places if place.conv and not self._has_integer_sums(place)]
        for place in self.places:
            if place.conv and place not in real:
                self._fold_integer(place)
        for place in real:
            self._fold_real(place)
        grids = self._grids()
        for place in real:
            self._round(place, grids)
        for place in self.places:
            if place.act and place.norm and not place.conv:
                self._set_neuron(place, *norm_affine(place.norm.layer))
        for parent, name, neuron in list(_children(self.model, HoyerSpike)):
            one = torch.ones_like(neuron.average_extremum().double())
            theta = firing_potential(neuron, one, torch.zeros_like(one))
            setattr(parent, name, real_level(theta, one < 0, parent in self.exact))
        self._report_the_rest()
        self.image.apply()
        for name, module in self.model.named_modules():
            if isinstance(module, FiringLevel):
                module.key = name
        self.model.folded_layers = self.layers
        return self.model

    def _reading(self, place: Place) -> Reading:
        return self.readings.get(place.conv.layer, REAL)

    def _has_integer_sums(self, place: Place) -> bool:
        kind = self._reading(place).kind
        return bool(place.act) and (kind == 'spikes' or (kind == 'image' and self.stem_bits == 8))

    def _fold_integer(self, place: Place) -> None:
        """Fold a convolution with the neuron behind it."""
        old, reading = place.conv.layer, self._reading(place)
        conv = copy.deepcopy(old)
        scale, shift = self._affine(place, conv)
        weight = conv.weight.double()
        if reading.kind == 'image':
            weight, offset = self.image.fold(weight)
            shift = shift + scale * offset
            bits, note, limit = 8, 'reads the image', STEM_LIMIT
            integers, step = integer_steps(weight, STEM_LARGEST, None)
        else:
            (bits, largest), note, limit = self._largest(old, self.bits), '', UNREACHED
            if reading.most > 1:
                note = f'reads sums of up to {reading.most} spikes'
            integers, step = integer_steps(weight, largest, reading.most)
        inverted = scale < 0
        if not place.pooled:
            sign = torch.where(inverted, -1.0, 1.0).double()
            integers, scale = integers * sign.view(-1, 1, 1, 1), scale * sign
            inverted = torch.zeros_like(inverted)

        def make(neuron: HoyerSpike) -> FiringLevel:
            return integer_level(firing_potential(neuron, scale, shift) / step, inverted, limit)

        conv.weight.copy_(integers)
        conv.bias = None
        place.conv.put(conv)
        self._replace(place, make)
        self._report(place, 'integer', bits, note)

    def _fold_real(self, place: Place) -> None:
        """Fold norm and image normalisation into a convolution whose sums are read as real values."""
        old, reading = place.conv.layer, self._reading(place)
        if place.norm and not place.act:
            fold_norm(place)
        else:
            place.conv.put(copy.deepcopy(old))
        conv = place.conv.layer
        if reading.kind == 'image':
            weight, offset = self.image.fold(conv.weight.double())
            conv.weight.copy_(weight)
            bias = offset if conv.bias is None else conv.bias.double() + offset
            conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
        self.readings[conv] = reading

    def _grids(self) -> dict[nn.Module, Tensor]:
        """Find the grids on which the sums of convolutions are exact."""
        grids: dict[nn.Module, Tensor] = {}
        owners: dict[nn.Module, bool] = {}
        for stream in streams(self.model):
            readings = [self.readings.get(conv, REAL) for conv in stream.convs]
            exact = stream.copied and all(reading.kind != 'real' for reading in readings)
            if exact:
                grids.update(dict.fromkeys(stream.convs, stream_grid(stream.convs, readings)))
            owners[stream.owner] = owners.get(stream.owner, True) and exact
        self.exact = {m for owner, exact in owners.items() if exact for m in owner.modules()}
        return grids

    def _round(self, place: Place, grids: dict[nn.Module, Tensor]) -> None:
        """Round the weights of a convolution whose sums are read as real values."""
        conv, reading = place.conv.layer, self._reading(place)
        bits, note = self.bits, f'{_READS[reading.kind]}, gives real values'
        if self._name(place).startswith(HEADS):
            bits = self.head_bits
        if reading.kind == 'image':
            bits, note = self.stem_bits, _READS['image']
            if place.act:
                grids[conv] = stream_grid([conv], [reading])
        exact = conv in grids
        if bits:
            bits, largest = self._largest(conv, bits)
            if reading.kind == 'image' and bits == 8:
                largest = STEM_LARGEST
            most = reading.most if reading.kind == 'spikes' else None
            round_weights(conv, largest, grids.get(conv), most)
        if place.act:
            scale, shift = self._affine(place, None)
            self._set_neuron(place, scale, shift, exact)
        note += ', exact in float32' * exact
        self._report(place, 'rounded' if bits else 'float', bits or 32, note)

    def _largest(self, conv: nn.Conv2d, bits: int) -> tuple[int, int | Tensor]:
        """Return bits and the largest integer, those of the training where weights were rounded in it."""
        return getattr(conv, 'trained', (bits, largest_weight(bits)))

    def _affine(self, place: Place, conv: nn.Conv2d | None) -> tuple[Tensor, Tensor]:
        """Return scale and shift of a place's norm, with the bias of a convolution in the shift."""
        if place.norm:
            scale, shift = norm_affine(place.norm.layer)
        else:
            weight = place.conv.layer.weight
            scale = torch.ones(weight.size(0), dtype=torch.float64, device=weight.device)
            shift = torch.zeros_like(scale)
        if conv is not None and conv.bias is not None:
            shift = shift + scale * conv.bias.double()
        return scale, shift

    def _set_neuron(
        self, place: Place, scale: Tensor, shift: Tensor, exact: bool | None = None
    ) -> None:
        """Replace a neuron that reads real values, with the norm before it."""
        exact = place.act.owner in self.exact if exact is None else exact

        def make(neuron: HoyerSpike) -> FiringLevel:
            return real_level(firing_potential(neuron, scale, shift), scale < 0, exact)

        self._replace(place, make)

    def _replace(self, place: Place, make: Callable[[HoyerSpike], FiringLevel]) -> None:
        place.act.put(replace_neurons(place.act.layer, make))
        if place.norm:
            place.norm.put(nn.Identity())

    def _name(self, place: Place) -> str:
        return f'{self.names[place.conv.owner]}.{place.conv.name}'.removeprefix('.')

    def _report(self, place: Place, kind: str, bits: int, note: str) -> None:
        self.layers.append(FoldedLayer(self._name(place), kind, bits, note))

    def _report_the_rest(self) -> None:
        reported = {layer.name for layer in self.layers}
        for name, module in self.model.named_modules():
            if name in reported:
                continue
            if isinstance(module, nn.Conv2d | nn.Linear):
                note = f'{type(module).__name__}: no convolution with a plain weight'
                self.layers.append(FoldedLayer(name, 'float', 32, note))
            elif is_norm(module):
                note = (
                    f'{type(module).__name__}: no convolution or neuron that it can be folded into'
                )
                self.layers.append(FoldedLayer(name, 'float', 32, note))


def _children(model: nn.Module, kind: type) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in model.modules():
        for name, child in parent._modules.items():
            if isinstance(child, kind):
                yield parent, name, child
