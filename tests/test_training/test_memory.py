"""How memory is kept on a CPU."""

import os
import platform
import resource
import sys
from pathlib import Path

import pytest
import torch
from hoyer_det.training.memory import keep_freed_memory
from warm import Warm


def _print_page_faults(keep: bool, variable: str) -> None:
    """Count page faults of 20 tensors of 40 MB, one after the other, after ten to begin with."""
    for name in [name for name in os.environ if name.startswith('MALLOC_')]:
        del os.environ[name]
    if variable:
        os.environ[variable] = '65536'
    if keep:
        keep_freed_memory()
    for number in range(30):
        if number == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(10_000_000)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    print(after - before)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='for the C library of Linux')
@pytest.mark.skipif(torch.cuda.is_available(), reason='for computing on a CPU')
def test_freed_memory_is_kept_unless_the_environment_says_how(tmp_path: Path, warm: Warm):
    def page_faults(keep: bool, variable: str = '') -> int:
        (ended,) = warm.run(['keep' if keep else '', variable], tmp_path, script=__file__)
        return int(ended.out)

    faults = page_faults(True)
    assert faults < 0.1 * page_faults(False)
    assert page_faults(True, 'MALLOC_MMAP_THRESHOLD_') > 10 * faults


if __name__ == '__main__':
    _print_page_faults(bool(sys.argv[1]), sys.argv[2])
