"""The Triton kernels, run by Triton's interpreter on CPU, against the passes on CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

if __name__ != '__main__':
    pytest.importorskip('triton')


def test_kernels_by_the_interpreter():
    # Triton decides at import whether it interprets.
    run = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert 'cases agree' in run.stdout


def compare() -> None:
    """Compare every function of both modules on small tensors."""
    import itertools

    import torch
    from hoyer_det.spiking import chunked, triton_passes

    torch.manual_seed(0)
    cases = 0
    options = itertools.product(
        (False, True), ((3, 5, 1100), (70, 5, 1), (2, 67, 1)), (False, True)
    )
    for with_norm, shape, with_pull in options:
        x = torch.randn(shape) * 1.5 + 0.5
        norm = None
        if with_norm:
            mean, var = triton_passes.moments(x)
            expected = chunked.moments(x)
            torch.testing.assert_close((mean, var), expected, rtol=1e-4, atol=1e-5)
            weight, bias = torch.rand(shape[1]) + 0.5, torch.randn(shape[1])
            norm = chunked.Affine(*expected, 1e-5, weight, bias)
        clip = torch.tensor(0.8)
        for per_channel, exclude in itertools.product((False, True), (False, True)):
            sums = [
                m.clipped_sums(x, norm, clip, per_channel, exclude)
                for m in (chunked, triton_passes)
            ]
            torch.testing.assert_close(*map(tuple, sums), rtol=1e-4, atol=1e-4)
        for level in (torch.tensor([0.4]), torch.rand(shape[1])):
            spikes = [torch.empty_like(x) for _ in range(2)]
            for module, out in zip((chunked, triton_passes), spikes, strict=True):
                module.fire(x, norm, level, out)
            assert torch.equal(*spikes) and 0 < spikes[0].mean() < 1
        for grad_spikes in (None, torch.randn(shape)):
            pull = (torch.tensor(-0.3), torch.tensor(0.2)) if with_pull else None
            if pull is None and grad_spikes is None:
                continue
            grads, others = [], []
            for module in (chunked, triton_passes):
                grads.append(torch.empty_like(x))
                others.append(
                    module.gradient(
                        grad_spikes, x, norm, clip, (2 * clip, 0.5 / clip), pull, grads[-1]
                    )
                )
            torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)
            for a, b in zip(*others, strict=True):
                if a is not None:
                    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
            cases += 1
    bad = torch.randn(2, 3, 8)
    bad[1, 1, 1] = float('inf')
    assert not triton_passes.clipped_sums(bad, None, clip, True, False).finite
    print(cases, 'cases agree')


if __name__ == '__main__':
    compare()
