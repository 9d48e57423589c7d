"""Inference of exported detectors: the spike engine against ReLU twins, one image, one and two threads.

The detectors have random weights, and neurons that fire at rates of 20, 10 and 5 %; the ranges of the int8
twin are those of noise. The graph alone is timed, without reading the image and NMS.
"""

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from hoyer_det.deploy.export import ExportSettings, export
from hoyer_det.deploy.exported_detector import ExportedDetector
from hoyer_det.deploy.int8 import quantizer
from hoyer_det_runtime.description import read_description
from hoyer_det_runtime.engines import open_engine
from random_detector import random_detector
from turns import add, alternate

NETWORKS = {
    'HoyerVGG16-SSD300': 'hoyer_ssd_voc',
    'HoyerResNet18-RetinaNet': 'hoyer_retinanet_r18_voc',
    'HoyerVGG16-YOLOv3': 'hoyer_yolov3_voc',
    'SSD of width 0.25': 'hoyer_ssd_shapes',
}
RATES = (0.2, 0.1, 0.05)
BITS = 5
PRODUCTS = {'onnxruntime': 'ONNX Runtime', 'openvino': 'OpenVINO'}


def exported_detectors(rows: list[dict], quick: bool, rounds: int) -> None:
    """Measure all networks, quickly the last one alone."""
    warnings.simplefilter('ignore')  # of MMDetection's coders
    names = list(NETWORKS)[-1:] if quick else list(NETWORKS)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            network(rows, name, Path(folder), quick, rounds)


def network(rows: list[dict], name: str, folder: Path, quick: bool, rounds: int) -> None:
    """Export and measure one network."""
    files = {}
    for rate in RATES:
        detector, cfg = random_detector(NETWORKS[name], rate)
        files[rate] = folder / f'spiking_{rate}.onnx'
        export(detector, cfg, files[rate], ExportSettings(weights=BITS, engines=()))
    twin, cfg = random_detector(NETWORKS[name], twin='relu')
    real, whole = folder / 'relu.onnx', folder / 'relu_int8.onnx'
    export(twin, cfg, real, ExportSettings(real=True, engines=()))
    size = read_description(real)['input']['size']
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, *size), np.uint8)
    calibration = quantizer([np.ascontiguousarray(noise[0].transpose(1, 2, 0))])
    export(twin, cfg, whole, ExportSettings(engines=()), quantize=calibration)
    for threads in (1,) if quick or (os.cpu_count() or 1) < 2 else (1, 2):
        torch.set_num_threads(threads)
        cases: dict[str, Callable[[], object]] = {
            f'spikes {rate}': open_case(file, 'spikes', threads, noise)
            for rate, file in files.items()
        }
        for engine in PRODUCTS:
            cases[f'same file, {engine}'] = open_case(files[RATES[0]], engine, threads, noise)
            cases[f'int8, {engine}'] = open_case(whole, engine, threads, noise)
        cases['float32'] = open_case(real, 'onnxruntime', threads, noise)
        cases['torch'] = open_torch(twin, noise)
        times = alternate(cases, rounds, torch.device('cpu'))
        side = 'x'.join(map(str, size))
        section = f'{name}, {side} px, {threads} thread{"s" if threads > 1 else ""}'
        for rate in RATES:
            what = f'spike engine, {BITS} bits, {rate:.0%} fire / '
            for engine, product in PRODUCTS.items():
                other = f'{what}int8 ReLU twin in {product}'
                add(rows, section, other, times, f'spikes {rate}', f'int8, {engine}')
        first = f'spikes {RATES[0]}'
        what = f'spike engine, {BITS} bits, {RATES[0]:.0%} fire / '
        for engine, product in PRODUCTS.items():
            same = f'{what}the same file in {product}'
            add(rows, section, same, times, first, f'same file, {engine}')
        add(rows, section, what + 'float32 ReLU twin in ONNX Runtime', times, first, 'float32')
        add(rows, section, what + 'float32 ReLU twin in PyTorch', times, first, 'torch')
        what = f'spike engine, {RATES[1]:.0%} / {RATES[0]:.0%} fire'
        add(rows, section, what, times, f'spikes {RATES[1]}', first)


def open_case(file: Path, engine: str, threads: int, image: np.ndarray) -> Callable[[], object]:
    """Return a function that runs an exported file."""
    opened = open_engine(engine, file, threads)
    return lambda: opened(image)


def open_torch(model: torch.nn.Module, image: np.ndarray) -> Callable[[], object]:
    """Return a function that runs a detector in PyTorch, decoding included."""
    detector, pixels = ExportedDetector(model, image.shape[2:]).eval(), torch.from_numpy(image)

    def run() -> None:
        with torch.inference_mode():
            detector(pixels)

    return run
