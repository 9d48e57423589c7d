"""Files that are damaged anywhere end in a line, never in memory that is not theirs."""

import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')

# In a process of its own: what it guards against would end it.
SCRIPT = """
import sys
import numpy as np
import onnx
from onnx_layers import Builder
from hoyer_det_runtime.spikes import SpikeEngine

net = Builder(seed=1, side=9)
x = net.stem(33)
weight = net.random.integers(-15, 16, (40, 33, 3, 3)).astype(np.int8)
x = net.spikes(x, weight, np.arange(-20, 20), dict(kernel_shape=[2, 2], strides=[2, 2]), pads=[1] * 4)
level = net.constant(np.zeros((1, 8, 1, 1), np.float32))
real = net.add('Conv', net.real(x), net.constant(np.ones((8, 40, 1, 1), np.float32)))
y = net.add('Cast', net.add('GreaterOrEqual', real, level), to=onnx.TensorProto.UINT8)
net.outputs.append((net.add('Concat', y, x, axis=1), onnx.TensorProto.UINT8))
model = net.model()
whole = onnx.shape_inference.infer_shapes(model).SerializeToString()
draw, images = np.random.default_rng(int(sys.argv[1])), np.zeros((1, 3, 9, 9), np.uint8)
# Weights fill most of the file, and any weights will do.
interesting = [i for i in range(len(whole)) if not 700 < i < len(whole) - 2500] or range(len(whole))
refused = ran = 0
for _ in range(int(sys.argv[2])):
    damaged = bytearray(whole)
    if draw.random() < 0.1:
        damaged = damaged[: draw.integers(len(whole))]
    else:
        for _ in range(draw.integers(1, 3)):
            damaged[draw.choice(interesting)] = draw.integers(256)
    with open('damaged.onnx', 'wb') as file:
        file.write(damaged)
    try:
        SpikeEngine('damaged.onnx')(images)
        ran += 1
    except ValueError as error:
        assert '\\n' not in str(error), error
        refused += 1
print(refused, ran)
"""


def test_damaged_files_are_refused_or_run(tmp_path):
    tests = str(next(p for p in sys.path if p.endswith('tests')))
    script = f'import sys; sys.path.insert(0, {tests!r})\n{SCRIPT}'
    result = subprocess.run(
        [sys.executable, '-c', script, '0', '200'], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    refused, ran = map(int, result.stdout.split()[-2:])
    assert refused > 50 and ran > 5
