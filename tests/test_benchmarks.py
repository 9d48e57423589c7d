"""benchmarks/run.py runs and writes what it says."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from warm import Warm

ROOT = Path(__file__).parents[1]
SCRIPT = str(ROOT / 'benchmarks' / 'run.py')


def test_quick_run_of_the_neuron_writes_table_json_and_plot(tmp_path: Path, warm: Warm):
    arguments = ['--quick', '--only', 'neuron', '--out', tmp_path]
    (result,) = warm.run(arguments, ROOT, script=SCRIPT)
    assert result.code == 0, result.err[-2000:]
    report = json.loads((tmp_path / 'cpu.json').read_text())
    assert len(report['rows']) == 6 and report['machine']
    for row in report['rows']:
        assert row['what'] in result.out and row['ratio'] > 0
        assert row['low'] <= row['ratio'] <= row['high']
    assert (tmp_path / 'cpu.png').stat().st_size > 1000


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_missing_gpu_is_said_in_a_line(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    monkeypatch.setattr(sys, 'argv', ['run.py', '--device', 'cuda'])
    with pytest.raises(SystemExit, match='2'):
        runpy.run_path(SCRIPT, run_name='__main__')
    assert 'PyTorch sees no CUDA device' in capsys.readouterr().err


def test_a_missing_library_is_said_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    monkeypatch.setitem(sys.modules, 'spikingjelly', None)
    arguments = ['run.py', '--quick', '--only', 'neuron', 'lif', '--out', str(tmp_path / 'out')]
    monkeypatch.setattr(sys, 'argv', arguments)
    with pytest.raises(SystemExit, match='2'):
        runpy.run_path(SCRIPT, run_name='__main__')
    said = capsys.readouterr()
    assert (
        'section lif' in said.err and '`pip install spikingjelly`, or `--only neuron`' in said.err
    )
    assert 'forward+backward' not in said.out and not (tmp_path / 'out').exists()
