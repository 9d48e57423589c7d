"""Times exported files, and the checkpoint in PyTorch beside them, in turns on one thread.

    python dev/measure_exports.py ssd.onnx@onnxruntime twin.onnx@openvino ssd.pth --rounds 20

The first is what the others are compared with. Batch 1; the graph alone, without reading images and NMS.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from hoyer_det import load
from hoyer_det.commands.errors import one_line_errors
from hoyer_det.deploy.exported_detector import ExportedDetector
from hoyer_det_runtime.description import read_description
from hoyer_det_runtime.engines import open_engine

_FLAGS = ('avx2', 'avx512f', 'avx_vnni', 'avx512_vnni', 'amx_int8')


def runner(name: str, image: np.ndarray) -> Callable[[], object]:
    """Return what is timed for a file and its engine, or for a checkpoint."""
    if name.endswith('.pth'):
        detector = ExportedDetector(load(name, 'cpu').model, image.shape[2:]).eval()
        pixels = torch.from_numpy(image)

        def run() -> object:
            with torch.inference_mode():
                return detector(pixels)

        return run
    path, _, engine = name.partition('@')
    opened = open_engine(engine or 'onnxruntime', path, 1)
    return lambda: opened(image)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('models', nargs='+', metavar='FILE.onnx[@ENGINE] or CHECKPOINT')
    parser.add_argument('--rounds', type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')  # of MMDetection's batched coders
    with one_line_errors():
        size = read_description(args.models[0].partition('@')[0])['input']['size']
        image = np.random.default_rng(0).integers(0, 256, (1, 3, *size), np.uint8)
        runs = {name: runner(name, image) for name in args.models}
        for run in runs.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    info = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').is_file() else ''
    model = next(
        (line.split(':')[1].strip() for line in info.splitlines() if 'model name' in line), ''
    )
    flags = [flag for flag in _FLAGS if f' {flag} ' in info]
    print(
        f'{model} ({", ".join(flags)}), {date.today()}, {args.rounds} rounds in turns, one thread'
    )
    first = statistics.median(times[args.models[0]])
    print('| model | ms, median | times the first | MB |\n|---|---|---|---|')
    for name, values in times.items():
        median, megabytes = (
            statistics.median(values),
            Path(name.partition('@')[0]).stat().st_size / 1e6,
        )
        print(f'| {name} | {median:.1f} | {median / first:.2f} | {megabytes:.1f} |')


if __name__ == '__main__':
    main()
