"""Times things in turns, and says what one costs against another."""

import os
import statistics
import time
from collections.abc import Callable

import torch
from hoyer_det.analysis.timing import describe_processor

Times = dict[str, list[tuple[float, float]]]


def machine(device: torch.device) -> str:
    """Describe the machine in a line."""
    if device.type == 'cuda':
        return f'{torch.cuda.get_device_name()}, torch {torch.__version__}'
    return (
        f'{describe_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, '
        f'load average {load():.1f}, torch {torch.__version__}'
    )


def load() -> float:
    """Return the load average of the last minute; NaN where the system has none."""
    return os.getloadavg()[0] if hasattr(os, 'getloadavg') else float('nan')


def alternate(cases: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> Times:
    """Run the cases in turn; return the seconds of wall clock and of processor of each run."""
    for run in cases.values():
        run()
    times: Times = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            _wait(device)
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            _wait(device)
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize()


def add(
    rows: list[dict], section: str, what: str, times: Times, case: str, base: str, scale: float = 1
) -> None:
    """Add a row: ``case`` against ``scale`` times ``base``."""
    wall, base_wall = ([t[0] for t in times[name]] for name in (case, base))
    ratios = sorted(a / (b * scale) for a, b in zip(wall, base_wall, strict=True))
    cpu = sum(t[1] for t in times[case]) / (scale * sum(t[1] for t in times[base]))
    rows.append(
        dict(
            section=section,
            what=what,
            value=statistics.median(wall) * 1e3,
            unit='ms',
            base=statistics.median(base_wall) * 1e3 * scale,
            ratio=statistics.median(ratios),
            low=ratios[len(ratios) // 4],
            high=ratios[(3 * len(ratios)) // 4],
            cpu_ratio=cpu,
        )
    )
    print(table(rows[-1:]), flush=True)


def table(rows: list[dict]) -> str:
    """Return the rows as a Markdown table."""
    lines = [] if len(rows) == 1 else ['| what | value | against | ratio | spread | CPU time |']
    lines += [] if len(rows) == 1 else ['|---|---|---|---|---|---|']
    for row in rows:
        spread = f'{row["low"]:.2f} to {row["high"]:.2f}' if 'low' in row else ''
        cpu = f'{row["cpu_ratio"]:.2f}' if 'cpu_ratio' in row else ''
        speed = row.get('images_per_second')
        value = f'{row["value"]:.4g} {row["unit"]}' + (f', {speed:.3g} images/s' if speed else '')
        lines.append(
            f'| {row["section"]}: {row["what"]} | {value} | {row["base"]:.4g} {row["unit"]} | '
            f'{row["ratio"]:.2f} | {spread} | {cpu} |'
        )
    return '\n'.join(lines)
