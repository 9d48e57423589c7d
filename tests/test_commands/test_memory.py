"""How memory is kept on a CPU."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY

FILE = str(REPOSITORY / 'projects' / 'hoyer_det' / 'commands' / 'memory.py')
# Page faults of 20 tensors of 40 MB, one after the other, after ten to begin with.
SCRIPT = """
import resource, runpy, torch
keep_freed_memory = runpy.run_path({file!r})['keep_freed_memory']  # without the whole package
if {keep}:
    keep_freed_memory()
for number in range(30):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool, **environment: str) -> int:
    variables = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_')} | environment
    run = subprocess.run(
        [sys.executable, '-c', SCRIPT.format(keep=keep, file=FILE)],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='for the C library of Linux')
@pytest.mark.skipif(torch.cuda.is_available(), reason='for computing on a CPU')
def test_freed_memory_is_kept_unless_the_environment_says_how():
    faults = page_faults(True)
    assert faults < 0.1 * page_faults(False)
    assert page_faults(True, MALLOC_MMAP_THRESHOLD_='65536') > 10 * faults
