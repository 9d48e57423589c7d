"""Energy of one image: the network as measured, and the twins of its shape."""

from collections.abc import Iterable
from dataclasses import dataclass

from .energy import EnergyTable
from .memory import traffic
from .operations import LayerOperations


@dataclass(frozen=True)
class Cost:
    """Energy of one image in microjoules.

    Attributes:
        compute: Of the operations alone.
        memory: Of the memory accesses.
    """

    compute: float
    memory: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.compute + self.memory


@dataclass(frozen=True)
class Network:
    """A way to run a network of a given shape.

    Attributes:
        label: What it is.
        number_format: Numbers of weights and real-valued activations, ``'fp32'`` or ``'int8'``.
        spiking: Whether what reads 0 and 1 adds, and spikes take 1 bit; else every operation is a
            multiply-accumulate and every activation a number.
        skips_zeros: Whether an addition with an input of 0 is left out.
    """

    label: str
    number_format: str
    spiking: bool = True
    skips_zeros: bool = True


def layer_cost(layer: LayerOperations, table: EnergyTable, network: Network) -> Cost:
    """Estimate the energy of one layer for one image.

    Args:
        layer: Operations as counted.
        table: Energy of the single operations.
        network: How the layer is run.
    """
    multiply, add = table.operations[network.number_format]
    if network.spiking and layer.input_kind == 'binary':
        compute = (layer.effective if network.skips_zeros else layer.dense) * add
    else:
        compute = layer.dense * multiply
    compute += layer.additions * add
    moved = traffic(layer, network.number_format, network.spiking)
    memory = moved.weights * table.weight_access
    memory += (moved.reads + moved.writes) * table.activation_access
    return Cost(compute / layer.images * 1e-6, memory * 1e-6)


def network_cost(layers: Iterable[LayerOperations], table: EnergyTable, network: Network) -> Cost:
    """Estimate the energy of one image over all layers.

    Args:
        layers: Operations as counted.
        table: Energy of the single operations.
        network: How the layers are run.
    """
    costs = [layer_cost(layer, table, network) for layer in layers]
    return Cost(sum(cost.compute for cost in costs), sum(cost.memory for cost in costs))


RELU_FP32 = Network('ReLU twin, fp32', 'fp32', spiking=False)
RELU_INT8 = Network('ReLU twin, int8', 'int8', spiking=False)


def spiking_rows(name: str) -> list[Network]:
    """Return the ways to run a network that was measured, by its name."""
    return [Network(f'{name}, fp32', 'fp32'), Network(f'{name}, int8 weights', 'int8')]


def twin_rows() -> list[Network]:
    """Return the twins of the same shape that need no training to be counted.

    The 1-bit twin has the densities of the network at hand, so with zeros skipped it costs the same by
    construction; without, it pays for every dense operation. A trained 1-bit network has densities of
    its own and must be measured itself.
    """
    return [
        RELU_FP32,
        RELU_INT8,
        Network('1-bit twin at these densities, fp32', 'fp32'),
        Network('1-bit twin at these densities, int8 weights', 'int8'),
        Network('1-bit twin, zeros not skipped, fp32', 'fp32', skips_zeros=False),
        Network('1-bit twin, zeros not skipped, int8 weights', 'int8', skips_zeros=False),
    ]
