"""Times exported files, and checkpoints in PyTorch beside them, in turns.

    python dev/measure_exports.py ssd.onnx@spikes ssd.onnx@onnxruntime ssd.pth --image street.jpg

The first is what the others are compared with. Batch 1; the graph alone, without reading images and NMS.
Without an image it gets noise, of which a trained network spikes in its own way.
"""

import argparse
import os
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from hoyer_det import load
from hoyer_det.analysis.timing import describe_processor, measure_milliseconds
from hoyer_det.commands.errors import one_line_errors
from hoyer_det.deploy.exported_detector import ExportedDetector
from hoyer_det_runtime.description import read_description
from hoyer_det_runtime.engines import open_engine
from hoyer_det_runtime.pixels import read_image
from hoyer_det_runtime.preprocessing import prepare


def runner(name: str, image: np.ndarray, threads: int) -> Callable[[], object]:
    """Return what is timed for a file and its engine, or for a checkpoint."""
    if name.endswith('.pth'):
        detector = ExportedDetector(load(name, 'cpu').model, image.shape[2:]).eval()
        pixels = torch.from_numpy(image)

        def run() -> object:
            with torch.inference_mode():
                return detector(pixels)

        return run
    path, _, engine = name.partition('@')
    opened = open_engine(engine or 'onnxruntime', path, threads)
    return lambda: opened(image)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('models', nargs='+', metavar='FILE.onnx[@ENGINE] or CHECKPOINT')
    parser.add_argument('--image', help='file, resized to the input of the first')
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter('ignore')  # of MMDetection's batched coders
    with one_line_errors():
        description = read_description(args.models[0].partition('@')[0])['input']
        size = description['size']
        if args.image:
            image = prepare(read_image(args.image), description)[0][None]
        else:
            image = np.random.default_rng(0).integers(0, 256, (1, 3, *size), np.uint8)
        calls = {name: runner(name, image, args.threads) for name in args.models}
    durations = measure_milliseconds(calls, args.rounds)
    first = durations[args.models[0]].median
    print(
        f'{describe_processor()}, {date.today()}, {args.rounds} rounds in turns, '
        f'{args.threads} of {os.cpu_count()} threads'
    )
    print('| model | ms, median | quartiles | times the first | MB |\n|---|---|---|---|---|')
    for name, found in durations.items():
        low, high = found.quartiles
        megabytes = Path(name.partition('@')[0]).stat().st_size / 1e6
        print(
            f'| {name} | {found.median:.1f} | {low:.1f} to {high:.1f} | {found.median / first:.2f} '
            f'| {megabytes:.1f} |'
        )


if __name__ == '__main__':
    main()
