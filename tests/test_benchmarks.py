"""benchmarks/run.py runs and writes what it says."""

import json
import subprocess
import sys
from pathlib import Path

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


def test_a_missing_gpu_is_said_in_a_line():
    import torch

    if torch.cuda.is_available():
        return
    result = run('--device', 'cuda')
    assert result.returncode == 2 and 'PyTorch sees no CUDA device' in result.stderr
