"""Milliseconds are measured in turns, and the processor is named as Linux names it."""

import pytest
from hoyer_det.analysis.timing import describe_processor, measure_milliseconds


def test_calls_take_turns_and_the_first_is_not_timed():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in 'ab'}
    found = measure_milliseconds(calls, 3)
    assert ''.join(order) == 'abababab'
    assert all(d.runs == 3 and 0 <= d.least <= d.median for d in found.values())


@pytest.mark.parametrize(
    'flags, says',
    [
        ('fpu avx512_vnni avx2', ', with VNNI'),
        ('fpu avx_vnni', ', with VNNI'),
        ('fpu avx512_bf16', ', without VNNI'),
    ],
)
def test_processor(tmp_path, flags, says):
    file = tmp_path / 'cpuinfo'
    file.write_text(
        f'processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: {flags}\n\nprocessor\t: 1\n'
        'model name\t: another\n'
    )
    assert describe_processor(str(file)) == f'Some CPU @ 2 GHz{says}'


def test_another_system_has_no_such_file(tmp_path):
    assert 'VNNI' not in describe_processor(str(tmp_path / 'cpuinfo'))
