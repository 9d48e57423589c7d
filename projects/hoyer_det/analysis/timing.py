"""Milliseconds of one image, measured in turns, and the machine that they belong to."""

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass
class Duration:
    """Wall-clock time of one call.

    Attributes:
        median: In milliseconds.
        quartiles: The first and the third, in milliseconds.
        least: In milliseconds.
        runs: Calls that were timed.
    """

    median: float
    quartiles: tuple[float, float]
    least: float
    runs: int


def measure_milliseconds(
    calls: Mapping[str, Callable[[], object]], runs: int
) -> dict[str, Duration]:
    """Time several calls in turns, so that other work on the machine meets all of them alike.

    Each is called once before, which is not timed. With CUDA, a call ends when the GPU is done.

    Args:
        calls: What to time, by name.
        runs: How often each is timed, at least once.

    Example:
        >>> found = measure_milliseconds({'sum': lambda: sum(range(1000))}, 5)
        >>> found['sum'].least <= found['sum'].median
        True
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            if run:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: _duration(t) for name, t in times.items()}


def _duration(times: list[float]) -> Duration:
    low, median, high = np.percentile(times, (25, 50, 75)).tolist()
    return Duration(median, (low, high), min(times), len(times))


def describe_processor(cpuinfo: str = '/proc/cpuinfo') -> str:
    """Return the name of the processor and whether it has VNNI, the int8 instructions of x86.

    Args:
        cpuinfo: Linux's file about the processor; elsewhere the name is what Python knows.
    """
    fields = {}
    try:
        for line in Path(cpuinfo).read_text().splitlines():
            key, _, value = line.partition(':')
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass  # not Linux
    name = fields.get('model name') or platform.processor() or platform.machine()
    if 'flags' not in fields:
        return name
    found = {'avx512_vnni', 'avx_vnni'} & set(fields['flags'].split())
    return f'{name}, {"with" if found else "without"} VNNI'
