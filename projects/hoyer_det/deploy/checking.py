"""Compares an exported file with the float64 network of the same weights, spike by spike."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from hoyer_det_runtime.engines import open_engine
from torch import Tensor, nn

from ..files import replacing
from .exported_detector import ExportedDetector
from .graph import quiet
from .levels import FiringLevel

# Where a level is compared with a potential that engines round: relative to the largest potential.
_ROUNDING = 1e-5
_BOX_ERROR = 1e-4  # of the longer side of the image
_SCORE_ERROR = 1e-4


@dataclass(frozen=True)
class Comparison:
    """What an engine computes, beside the float64 network.

    Attributes:
        engine: Its name.
        spikes: Number of spikes and non-spikes that were compared.
        wrong: Layer: number of those that differ.
        rounded: Number of those that differ where an engine may round, next to a level.
        rates: Layer: share of spikes, in the float64 network.
        boxes: Largest difference of a box, in pixels.
        scores: Largest difference of a score.
        allowed_boxes: Largest difference that float32 explains, in pixels.
    """

    engine: str
    spikes: int
    wrong: dict[str, int]
    rounded: int
    rates: dict[str, float]
    boxes: float
    scores: float
    allowed_boxes: float

    @property
    def good(self) -> bool:
        """Whether all spikes are equal and boxes and scores differ by rounding alone."""
        close = self.boxes <= self.allowed_boxes and self.scores <= _SCORE_ERROR
        return not self.wrong and close

    def __str__(self) -> str:
        what = f'{self.engine}: {self.spikes} spikes of {len(self.rates)} layers compared'
        if self.wrong:
            name, number = next(iter(self.wrong.items()))
            what += f', DIFFERENT in {len(self.wrong)} layers (first: {name}, {number})'
        elif self.rates:
            what += ', all equal'
        if self.rounded:
            what += f'; {self.rounded} next to their level differ by rounding'
        return f'{what}; boxes within {self.boxes:.1g} px, scores within {self.scores:.1g}'


def compare(
    model: onnx.ModelProto,
    detector: ExportedDetector,
    engine: str,
    images: np.ndarray | None = None,
) -> Comparison:
    """Run an exported file in an engine and the network in float64.

    Each layer of the network is given the spikes of the engine, so that a difference is counted in the
    layer where it begins. A second run, of the file as it is, gives boxes and scores: engines join layers
    where nobody reads what is between them.

    Args:
        model: The file's content.
        detector: What it was exported from.
        engine: Name of an engine of the runtime.
        images: uint8 (N, 3, H, W); by default :func:`check_images`.
    """
    images = check_images(detector.size) if images is None else images
    reference = copy.deepcopy(detector).double()
    names = [out for node in model.graph.node for out in node.output if out.startswith('spikes/')]
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    for name in names:
        opened.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, [None] * 4)
        )
    inner, outer = run_model(opened, engine, images), run_model(model, engine, images)
    watcher = _Watcher(inner)
    for module in reference.modules():
        if isinstance(module, FiringLevel):
            module.register_forward_hook(watcher)
    with torch.no_grad(), quiet():
        boxes, scores = reference(torch.from_numpy(images))
    if set(watcher.rates) != set(names):
        raise ValueError(f'export: neurons {set(watcher.rates) ^ set(names)} are not in both')
    return Comparison(
        engine=engine,
        spikes=watcher.total,
        wrong=watcher.wrong,
        rounded=watcher.rounded,
        rates=watcher.rates,
        boxes=_largest(boxes, outer['boxes']),
        scores=_largest(scores, outer['scores']),
        allowed_boxes=_BOX_ERROR * max(float(boxes.abs().max()), *detector.size),
    )


class _Watcher:
    """Compares the output of each neuron with an engine's, and hands the engine's on."""

    def __init__(self, spikes: dict[str, np.ndarray]) -> None:
        self.spikes = spikes
        self.total = self.rounded = 0
        self.wrong: dict[str, int] = {}
        self.rates: dict[str, float] = {}

    def __call__(self, neuron: FiringLevel, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """Compare."""
        name, number = f'spikes/{neuron.key}', 2
        while name in self.rates:
            name, number = f'spikes/{neuron.key}#{number}', number + 1
        if name not in self.spikes:  # of a stage that nobody reads, which the graph does without
            return out
        theirs = torch.from_numpy(self.spikes[name]).to(out.dtype)
        self.rates[name] = float(out.mean())
        self.total += out.numel()
        differ = theirs != out
        if not neuron.exact and bool(differ.any()):
            u = inputs[0]
            near = (u - neuron.level.view(-1, 1, 1)).abs() <= _ROUNDING * u.abs().max()
            self.rounded += int((differ & near).sum())
            differ = differ & ~near
        if bool(differ.any()):
            self.wrong[name] = int(differ.sum())
        return theirs


def check_images(size: Sequence[int], number: int = 2) -> np.ndarray:
    """Return images with contrast at several scales, uint8 (number, 3, height, width)."""
    draw = torch.Generator().manual_seed(0)
    images = torch.zeros(number, 3, *size)
    for scale in (1, 4, 16, 64):
        coarse = [max(1, side // scale) for side in size]
        noise = torch.rand(number, 3, *coarse, generator=draw)
        images += nn.functional.interpolate(noise, tuple(size), mode='nearest')
    return (images / 4 * 255).round().to(torch.uint8).numpy()


def run_model(model: onnx.ModelProto, engine: str, images: np.ndarray) -> dict[str, np.ndarray]:
    """Run the content of a file in an engine.

    Args:
        model: The file's content.
        engine: Name of an engine of the runtime.
        images: uint8 (N, 3, H, W).

    Returns:
        The outputs by their names.

    Raises:
        ValueError: If the engine cannot run it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        with replacing(path) as part:  # which names the file where the disk is full
            onnx.save(model, str(part))
        try:
            outputs = open_engine(engine, path, 1)(images)
        except ValueError as error:
            # The temporary name tells nothing.
            raise ValueError(str(error).replace(str(path), 'export: the file')) from error
        return {name: np.array(value) for name, value in outputs.items()}


def _largest(ours: Tensor, theirs: np.ndarray) -> float:
    return float((ours - torch.from_numpy(theirs).double()).abs().max())
