"""benchmarks/run.py runs and writes what it says."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / 'benchmarks' / 'run.py'), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_quick_run_of_the_neuron_writes_table_json_and_plot(tmp_path):
    result = run('--quick', '--only', 'neuron', '--out', str(tmp_path))
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads((tmp_path / 'cpu.json').read_text())
    assert len(report['rows']) == 6 and report['machine']
    for row in report['rows']:
        assert row['what'] in result.stdout and row['ratio'] > 0
        assert row['low'] <= row['ratio'] <= row['high']
    assert (tmp_path / 'cpu.png').stat().st_size > 1000


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_missing_gpu_is_said_in_a_line(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    monkeypatch.setattr(sys, 'argv', ['run.py', '--device', 'cuda'])
    with pytest.raises(SystemExit, match='2'):
        runpy.run_path(str(ROOT / 'benchmarks' / 'run.py'), run_name='__main__')
    assert 'PyTorch sees no CUDA device' in capsys.readouterr().err
