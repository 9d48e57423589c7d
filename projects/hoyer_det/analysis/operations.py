"""Counts the operations of every convolution and linear layer from what it really reads."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class LayerOperations:
    """Operations of one layer, summed over the images it has seen.

    Attributes:
        name: Dotted name of the layer in the model.
        images: Number of images.
        dense: Multiply-accumulates of the dense layer, padding included, as FLOP counters count.
        effective: Those whose input is not 0.
        binary: Whether every input seen was exactly 0 or 1, so that the effective operations are
            additions.
    """

    name: str
    images: int = 0
    dense: int = 0
    effective: int = 0
    binary: bool = True


@dataclass(frozen=True)
class EnergyTable:
    """Energy of single operations in picojoules.

    Attributes:
        multiply_accumulate: A 32-bit floating-point multiplication with addition.
        accumulate: A 32-bit floating-point addition.
        source: Where the numbers stand.
    """

    multiply_accumulate: float
    accumulate: float
    source: str


ENERGY_45NM = EnergyTable(
    4.6, 0.9, '45 nm CMOS, M. Horowitz, "Computing\'s energy problem", ISSCC 2014'
)


def count_operations(
    model: nn.Module, run: Callable[[Tensor], object], images: Iterable[Tensor]
) -> list[LayerOperations]:
    """Count operations while a model looks at images.

    Args:
        model: Network whose ``Conv2d`` and ``Linear`` layers are counted, in evaluation mode.
        run: Runs the model on one batch, for example ``lambda x: model(x, mode='tensor')``.
        images: Batches of shape (N, C, H, W).

    Returns:
        One entry for each layer that ran, in the order of execution.
    """
    layers: dict[str, LayerOperations] = {}
    batch = 0

    def counter(name: str) -> Callable:
        def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0]
            entry = layers.setdefault(name, LayerOperations(name))
            taps = module.weight[0].numel()
            entry.dense += output.numel() * taps
            active = x != 0
            entry.binary = entry.binary and bool(torch.all(~active | (x == 1)))
            entry.effective += _taps_on(module, active.to(torch.float32))
            entry.images += batch

        return count

    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                hooks.callback(module.register_forward_hook(counter(name)).remove)
        for x in images:
            batch = len(x)
            run(x)
    return list(layers.values())


def _taps_on(module: nn.Module, active: Tensor) -> int:
    """Return how many products of the layer have an active input, exactly."""
    if isinstance(module, nn.Linear):
        return int(active.sum(dtype=torch.float64)) * module.out_features
    ones = active.new_ones(module.groups, *module.weight.shape[1:])
    taps = F.conv2d(
        active, ones, None, module.stride, module.padding, module.dilation, module.groups
    )
    return int(taps.sum(dtype=torch.float64)) * (module.out_channels // module.groups)


def energy(layers: Iterable[LayerOperations], table: EnergyTable = ENERGY_45NM) -> float:
    """Estimate the energy of one image in microjoules, computation alone.

    A layer that reads only 0 and 1 pays one addition for each active input; any other pays for every
    dense multiply-accumulate. Memory traffic, norms, pooling and control are left out.

    Args:
        layers: Operations as counted by :func:`count_operations`.
        table: Energy of the single operations.
    """
    total = 0.0
    for layer in layers:
        cost = (
            layer.effective * table.accumulate
            if layer.binary
            else layer.dense * table.multiply_accumulate
        )
        total += cost / layer.images
    return total * 1e-6
