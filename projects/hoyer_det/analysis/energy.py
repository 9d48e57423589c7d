"""Energy of one image: tables of what single operations cost, and networks run in several ways."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .operations import LayerOperations

NUMBER_FORMATS = {'fp32': 32, 'int8': 8}  # bits of a weight and of a real-valued activation

_HOROWITZ = 'M. Horowitz, "Computing\'s energy problem (and what we can do about it)", ISSCC 2014'
_JOUPPI = (
    'N. Jouppi et al., "Ten lessons from three generations shaped Google\'s TPUv4i", ISCA 2021, '
    'which brings the table of Horowitz up to 7 nm'
)


@dataclass(frozen=True)
class EnergyTable:
    """Energy of single operations and of memory accesses.

    Attributes:
        name: Name shown in the report.
        source: Where the numbers stand.
        operations: For each of ``'fp32'`` and ``'int8'`` the energy in picojoules of a
            multiply-accumulate and of an accumulate (the addition of a weight).
        weight_access: Picojoules to move a byte of weights.
        activation_access: Picojoules to move a byte of activations.
        memory: What kind of memory that is.
    """

    name: str
    source: str
    operations: dict[str, tuple[float, float]]
    weight_access: float
    activation_access: float
    memory: str


# int8 keeps its sums in 32 bits: product 8 x 8 bits plus 32-bit addition; accumulate 32 bits.
_OPERATIONS_45NM = {'fp32': (3.7 + 0.9, 0.9), 'int8': (0.2 + 0.1, 0.1)}
_OPERATIONS_7NM = {'fp32': (1.31 + 0.38, 0.38), 'int8': (0.07 + 0.03, 0.03)}
# An access moves 64 bits. 1 MB of SRAM: 100 pJ (45 nm), 14 pJ (7 nm). DRAM: from 1300 pJ.
_SRAM_45NM, _SRAM_7NM, _DRAM = 100 / 8, 14 / 8, 1300 / 8

ENERGY_TABLES = {
    table.name: table
    for table in (
        EnergyTable(
            '45nm', _HOROWITZ, _OPERATIONS_45NM, _SRAM_45NM, _SRAM_45NM, 'all in 1 MB of SRAM'
        ),
        EnergyTable(
            '45nm-dram',
            _HOROWITZ,
            _OPERATIONS_45NM,
            _DRAM,
            _SRAM_45NM,
            'weights in DRAM (lower end of its range), activations in 1 MB of SRAM',
        ),
        EnergyTable('7nm', _JOUPPI, _OPERATIONS_7NM, _SRAM_7NM, _SRAM_7NM, 'all in 1 MB of SRAM'),
        EnergyTable(
            '7nm-dram',
            _JOUPPI,
            _OPERATIONS_7NM,
            _DRAM,
            _SRAM_7NM,
            'weights in DDR4, activations in 1 MB of SRAM',
        ),
    )
}


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f'{key} is given twice')
    return dict(pairs)


def load_energy_table(name: str) -> EnergyTable:
    """Return a built-in table by its name, or read one from a JSON file.

    The file holds numbers in picojoules, per operation and per byte::

        {"name": "my chip", "source": "data sheet",
         "fp32": {"multiply_accumulate": 1.5, "accumulate": 0.4},
         "int8": {"multiply_accumulate": 0.1, "accumulate": 0.03},
         "memory": {"weights": 30.0, "activations": 2.0, "note": "HBM and SRAM"}}

    Args:
        name: Name of a built-in table, or path of a file that ends in ``.json``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no such table, or the file lacks an entry, has an unknown one, one that
            is no number from 0 to 1e12, or the name of a built-in table.
    """
    if name in ENERGY_TABLES:
        return ENERGY_TABLES[name]
    if not name.endswith('.json'):
        raise ValueError(
            f'--energy {name}: no such table; built in are {", ".join(ENERGY_TABLES)}, anything else '
            'must be a .json file'
        )
    if not Path(name).is_file():
        raise FileNotFoundError(f'--energy {name}: no such file')
    try:
        text = Path(name).read_text(encoding='utf-8-sig')
        values = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{name}: cannot be read as JSON ({error})') from error
    if not isinstance(values, dict):
        raise ValueError(f'{name}: holds a {type(values).__name__}, not an object with a table')
    flat = {}
    for key, value in values.items():
        inner = value if isinstance(value, dict) else None
        flat.update({key: value} if inner is None else {f'{key}.{k}': v for k, v in inner.items()})
    numbers = [
        f'{f}.{kind}' for f in NUMBER_FORMATS for kind in ('multiply_accumulate', 'accumulate')
    ]
    numbers += ['memory.weights', 'memory.activations']
    wanted = ['name', 'source', *numbers]
    for key in (*wanted, *flat):
        if key not in flat or key not in (*wanted, 'memory.note'):
            fault = 'is not known' if key in flat else 'is missing'
            raise ValueError(f'{name}: {key} {fault}; wanted are {", ".join(wanted)}')
    for key, value in flat.items():
        if key not in numbers and not (isinstance(value, str) and value.strip()):
            raise ValueError(f'{name}: {key} must be text, got {value!r}')
        if key in numbers and not (type(value) in (int, float) and 0 <= value <= 1e12):
            raise ValueError(
                f'{name}: {key} must be a number from 0 to 1e12 (picojoules), got {value!r}'
            )
    if values['name'] in {*ENERGY_TABLES, 'network'}:
        raise ValueError(f'{name}: name {values["name"]!r} is taken, choose another')
    costs = [float(flat[key]) for key in numbers]
    operations = {f: (costs[2 * i], costs[2 * i + 1]) for i, f in enumerate(NUMBER_FORMATS)}
    note = flat.get('memory.note', 'as given')
    return EnergyTable(values['name'], values['source'], operations, *costs[-2:], note)


@dataclass(frozen=True)
class Traffic:
    """Bytes moved for one image: weights and inputs read once, outputs written once.

    Attributes:
        weights: Bytes of weights and biases read.
        reads: Bytes of inputs, and of potentials kept, read.
        writes: Bytes of outputs, and of potentials kept, written.
    """

    weights: float
    reads: float
    writes: float


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
    """A way to run a network whose operations were counted.

    Attributes:
        label: What it is.
        number_format: Numbers of weights and real-valued activations, ``'fp32'`` or ``'int8'``.
        spiking: Whether layers that read 0 and 1 alone add, and spikes take 1 bit; else every operation
            is a multiply-accumulate and every activation a number.
        skips_zeros: Whether operations with an input of 0 are left out, in every layer.
    """

    label: str
    number_format: str
    spiking: bool = True
    skips_zeros: bool = True


def networks(name: str, spiking: bool) -> list[Network]:
    """Return the ways to run a network that was measured.

    Args:
        name: Name of the network.
        spiking: Whether its activations are spikes; what has none runs with and without its zeros.
    """
    if spiking:
        return [Network(f'{name}, fp32', 'fp32'), Network(f'{name}, int8 weights', 'int8')]
    return [
        Network(f'{name}{zeros}, {number_format}', number_format, False, bool(zeros))
        for zeros in ('', ', zeros skipped')
        for number_format in NUMBER_FORMATS
    ]


# Twins of the shape of a spiking network: what skips no zeros needs no training to be counted.
RELU_FP32, RELU_INT8 = networks('ReLU twin', False)[:2]
DENSE_ONE_BIT = [
    Network('1-bit twin, zeros not skipped, fp32', 'fp32', skips_zeros=False),
    Network('1-bit twin, zeros not skipped, int8 weights', 'int8', skips_zeros=False),
]
ESTIMATED_TWINS = [RELU_FP32, RELU_INT8, *DENSE_ONE_BIT]


def traffic(layer: LayerOperations, number_format: str, spiking: bool = True) -> Traffic:
    """Return what a layer moves for one image.

    Each weight is read once an image, each input once a call, and each output is written once: after
    norm and neuron, which are taken to be part of the layer before them, and after pooling that stands
    before the neuron. Inputs verified to be 0 or 1 and outputs of a neuron take 1 bit; everything else
    takes the bits of the number format. A potential is stored where a leaky neuron keeps it from one
    time step to the next: written and read once for each step after the first. The sum of two feature
    maps reads one of them, the other comes from the layer before, and is written.

    Args:
        layer: Operations as counted.
        number_format: ``'fp32'`` or ``'int8'``.
        spiking: Whether spikes take 1 bit; False for a twin of the same shape whose activations are
            all numbers and which keeps no potentials.
    """
    bits = NUMBER_FORMATS[number_format]
    spike_bits = 1 if spiking else bits
    read_bits = spike_bits if layer.input_kind == 'binary' else bits
    kept = layer.potentials * bits if spiking else 0
    writes = layer.written_spikes * spike_bits + layer.written_real * bits + kept
    return Traffic(
        layer.weights * bits / 8,
        (layer.inputs * read_bits + kept) / 8 / layer.images,
        writes / 8 / layer.images,
    )


def layer_cost(layer: LayerOperations, table: EnergyTable, network: Network) -> Cost:
    """Estimate the energy of one layer for one image.

    Args:
        layer: Operations as counted.
        table: Energy of the single operations.
        network: How the layer is run.
    """
    multiply, add = table.operations[network.number_format]
    operations = layer.effective if network.skips_zeros else layer.dense
    adds = network.spiking and layer.input_kind == 'binary'
    compute = operations * (add if adds else multiply) + layer.additions * add
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
