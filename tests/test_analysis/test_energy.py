"""Energy and memory against hand calculations; tables of the user."""

import json

import pytest
from hoyer_det.analysis import (
    ENERGY_TABLES,
    EnergyTable,
    LayerOperations,
    Network,
    layer_cost,
    load_energy_table,
    network_cost,
    traffic,
)
from hoyer_det.analysis.energy import DENSE_ONE_BIT, RELU_FP32, RELU_INT8, networks

TABLE = EnergyTable('test', 'nowhere', {'fp32': (10.0, 2.0), 'int8': (3.0, 1.0)}, 5.0, 7.0, 'none')
SPIKES = LayerOperations(
    'spikes',
    'convolution',
    images=2,
    calls=2,
    dense=1000,
    effective=300,
    inputs=160,
    input_kind='binary',
    weights=50,
    written_spikes=80,
)
STEM = LayerOperations(
    'stem', 'convolution', 2, 2, 400, 390, inputs=40, input_kind='real', weights=8, written_real=20
)
RESIDUAL = LayerOperations('sum', 'addition', 2, 2, additions=60, inputs=60, input_kind='real')


def test_bytes_of_spikes_and_numbers():
    moved = traffic(SPIKES, 'fp32')
    # An image: 50 weights of 4 bytes, 80 spikes read and 40 written at 1 bit.
    assert (moved.weights, moved.reads, moved.writes) == (200, 10, 5)
    moved = traffic(SPIKES, 'int8', spiking=False)
    assert (moved.weights, moved.reads, moved.writes) == (50, 80, 40)
    moved = traffic(STEM, 'fp32')
    assert (moved.weights, moved.reads, moved.writes) == (32, 80, 40)


def test_energy_equals_a_hand_calculation():
    spiking = Network('', 'fp32')
    cost = layer_cost(SPIKES, TABLE, spiking)
    assert cost.compute == pytest.approx(150 * 2 * 1e-6)
    assert cost.memory == pytest.approx((200 * 5 + 15 * 7) * 1e-6)
    assert cost.total == cost.compute + cost.memory
    # A layer that reads numbers multiplies; operations with a zero are left out there, too.
    assert layer_cost(STEM, TABLE, spiking).compute == pytest.approx(195 * 10 * 1e-6)
    assert layer_cost(RESIDUAL, TABLE, spiking).compute == pytest.approx(30 * 2 * 1e-6)
    whole = network_cost([SPIKES, STEM, RESIDUAL], TABLE, spiking)
    assert whole.compute == pytest.approx((300 + 1950 + 60) * 1e-6)


def test_twins_of_the_same_shape():
    assert layer_cost(SPIKES, TABLE, RELU_FP32).compute == pytest.approx(500 * 10 * 1e-6)
    relu = layer_cost(SPIKES, TABLE, RELU_INT8)
    assert relu.compute == pytest.approx(500 * 3 * 1e-6)
    assert relu.memory == pytest.approx((50 * 5 + 120 * 7) * 1e-6)
    fp32, int8 = (layer_cost(SPIKES, TABLE, network).compute * 1e6 for network in DENSE_ONE_BIT)
    assert (fp32, int8) == pytest.approx((1000, 500))


def test_a_network_without_spikes_runs_with_and_without_its_zeros():
    costs = {network.label: layer_cost(STEM, TABLE, network) for network in networks('relu', False)}
    assert {name: cost.compute * 1e6 for name, cost in costs.items()} == pytest.approx(
        {
            'relu, fp32': 200 * 10,
            'relu, int8': 200 * 3,
            'relu, zeros skipped, fp32': 195 * 10,
            'relu, zeros skipped, int8': 195 * 3,
        }
    )
    # The inputs are read all the same.
    assert costs['relu, fp32'].memory == costs['relu, zeros skipped, fp32'].memory


def test_a_count_of_spikes_is_multiplied():
    layer = LayerOperations('', 'convolution', 1, 1, 100, 40, input_kind='count')
    assert layer_cost(layer, TABLE, Network('', 'fp32')).compute == pytest.approx(400e-6)


def test_built_in_constants():
    old = ENERGY_TABLES['45nm']
    assert old.operations['fp32'] == pytest.approx((4.6, 0.9))
    assert old.operations['int8'] == pytest.approx((0.3, 0.1))
    assert old.activation_access == 100 / 8  # 64 bits from 1 MB of SRAM: 100 pJ
    assert ENERGY_TABLES['45nm-dram'].weight_access == 1300 / 8
    for table in ENERGY_TABLES.values():
        assert table.source and table.memory
        assert load_energy_table(table.name) is table


GOOD = dict(
    name='chip',
    source='data sheet',
    fp32=dict(multiply_accumulate=1.5, accumulate=0.4),
    int8=dict(multiply_accumulate=0.1, accumulate=0),
    memory=dict(weights=30, activations=2.0),
)


def written(folder, **changes):
    file = folder / 'chip.json'
    file.write_text(json.dumps({**GOOD, **changes}))
    return str(file)


def test_a_table_of_the_user(tmp_path):
    table = load_energy_table(written(tmp_path))
    assert table.name == 'chip' and table.source == 'data sheet'
    assert table.operations == {'fp32': (1.5, 0.4), 'int8': (0.1, 0.0)}
    assert (table.weight_access, table.activation_access) == (30.0, 2.0)
    file = tmp_path / 'notepad.json'  # which writes a byte order mark
    file.write_text(json.dumps(GOOD), encoding='utf-8-sig')
    assert load_energy_table(str(file)) == table


@pytest.mark.parametrize(
    'changes, part',
    [
        (dict(fp32=dict(multiply_accumulate=1.0)), 'fp32.accumulate is missing'),
        (dict(memory=dict(weights=1, activations=-2)), 'memory.activations must be a number'),
        (dict(int8=dict(multiply_accumulate='1', accumulate=1)), 'int8.multiply_accumulate must'),
        (dict(sram=3), 'sram is not known'),
        (dict(name=3), 'name must be text'),
        (dict(name=' '), 'name must be text'),
        (dict(memory=dict(weights=1, activations=2, note=3)), 'memory.note must be text'),
        (dict(memory=dict(weights=1.7e308, activations=2)), 'memory.weights must be a number'),
        (dict(memory=dict(weights=10**400, activations=2)), 'memory.weights must be a number'),
        (dict(name='45nm'), "name '45nm' is taken"),
        (dict(fp32=4.6), 'fp32.multiply_accumulate is missing'),
    ],
)
def test_a_wrong_table_is_refused_by_its_entry(tmp_path, changes, part):
    with pytest.raises(ValueError, match='chip.json') as error:
        load_energy_table(written(tmp_path, **changes))
    assert part in str(error.value)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match='built in are 45nm, 45nm-dram'):
        load_energy_table('45 nm')
    with pytest.raises(FileNotFoundError, match='lost.json'):
        load_energy_table(str(tmp_path / 'lost.json'))
    twice = '{"fp32": {"accumulate": 0.4, "accumulate": 0.04}}'
    for text, fault in ('{', ''), ('[' * 100_000, ''), (twice, 'accumulate is given twice'):
        (tmp_path / 'bad.json').write_text(text)
        with pytest.raises(ValueError, match=f'bad.json: cannot be read as JSON .*{fault}'):
            load_energy_table(str(tmp_path / 'bad.json'))
    (tmp_path / 'list.json').write_text('[1]')
    with pytest.raises(ValueError, match='list.json: holds a list'):
        load_energy_table(str(tmp_path / 'list.json'))
