"""From a detector to a checked file."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from hoyer_det_runtime.description import KEY
from mmengine.config import Config
from torch import nn

from ..files import replacing
from ..spiking import HoyerSpike
from .checking import Comparison, check_images, compare, run_model
from .description import describe, input_of, output_of
from .exported_detector import ExportedDetector
from .fold import FoldedLayer, fold
from .fold_norms import fold_norms
from .graph import to_onnx
from .graph_nms import add_nms


@dataclass(frozen=True)
class ExportSettings:
    """How a detector is exported.

    Attributes:
        weights: Bits of each weight, see :func:`fold`.
        heads: ``'int8'`` or ``'fp32'``, for weights of read-outs.
        stem: ``'int8'`` or ``'fp32'``.
        real: Whether to leave everything in float32.
        nms: Whether the graph ends with NMS, and has an output ``detections``.
        shape: Height and width of the input, by default those of the config.
        engines: Engines to check the file in.
    """

    weights: int | None = None
    heads: str = 'int8'
    stem: str = 'int8'
    real: bool = False
    nms: bool = False
    shape: tuple[int, int] | None = None
    engines: Sequence[str] = ('onnxruntime',)


@dataclass
class Exported:
    """What became of an export.

    Attributes:
        path: The file.
        kind: ``'spiking'``, ``'float'`` or ``'int8'``.
        layers: What became of each layer.
        comparisons: The check in each engine, of an int8 file before it became int8.
        ran: Engines that ran the file as it is written, where that is not what was compared.
    """

    path: Path
    kind: str
    layers: list[FoldedLayer] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)


def export(
    model: nn.Module,
    cfg: Config,
    path: str | Path,
    settings: ExportSettings | None = None,
    checkpoint: str | Path | None = None,
    quantize: Callable[[Path, dict[str, Any]], onnx.ModelProto] | None = None,
) -> Exported:
    """Export a detector into a file that is there only if it passed its check.

    A spiking detector is folded (:func:`fold`). One without neurons stays in float32, unless
    ``quantize`` makes it int8. An int8 file, one with NMS, and one of real-valued neurons, which cannot be
    compared, are run in each engine before they are written.

    Args:
        model: Single-stage detector, in the state to export, with ``dataset_meta``.
        cfg: Its config, for the test pipeline.
        path: File to write, ``.onnx``.
        settings: How.
        checkpoint: File whose SHA-256 is written down.
        quantize: Turns a float32 file into an int8 one: see :func:`hoyer_det.deploy.int8.quantizer`.

    Raises:
        ValueError: If the detector cannot be exported, a setting has no effect on it, the file computes
            anything else than it, or an engine cannot run the file.
    """
    settings = settings or ExportSettings()
    spiking = any(isinstance(module, HoyerSpike) for module in model.modules())
    folds = spiking and not settings.real
    to_int8 = quantize is not None and not spiking and not settings.real
    if not folds:
        _refuse_settings(settings, to_int8)
    given = input_of(cfg, model, settings.shape)
    size = tuple(given['size'])
    if folds:
        network = fold(model, settings.weights, settings.stem, settings.heads, size)
    else:
        network = fold_norms(model)
    detector = ExportedDetector(network, size)
    output = output_of(network, detector.levels, detector.clips, detector.has_factor)
    proto, names = to_onnx(detector)
    kind = 'spiking' if folds else 'int8' if to_int8 else 'float'
    outcome = Exported(Path(path), kind, getattr(network, 'folded_layers', []))
    # Real-valued neurons next to their level round differently in every engine: nothing to compare.
    compared = settings.engines if folds or not spiking else ()
    outcome.comparisons = [compare(proto, detector, engine) for engine in compared]
    for comparison in outcome.comparisons:
        if not comparison.good:
            raise ValueError(f'{path}: not written, it would compute something else: {comparison}')
    if to_int8:
        with tempfile.TemporaryDirectory() as folder:
            real = Path(folder, 'float32.onnx')
            with replacing(real) as part:  # which names the file where the disk is full
                onnx.save(proto, str(part))
            proto = quantize(real, given)
    if settings.nms:
        add_nms(proto, output)
    if to_int8 or settings.nms or not compared:
        for engine in settings.engines:
            run_model(proto, engine, check_images(size))
            outcome.ran.append(engine)
    description = describe(
        model.dataset_meta['classes'],
        given,
        output,
        kind=kind,
        twin=cfg.get('twin'),
        spikes=names,
        bits={layer.name: layer.bits for layer in outcome.layers},
        rates=outcome.comparisons[0].rates if outcome.comparisons else {},
        config=Path(cfg.filename or '').stem,
        checkpoint=_hash(checkpoint),
    )
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(description)
    with replacing(path) as part:
        onnx.save(proto, str(part))
    return outcome


def _refuse_settings(settings: ExportSettings, to_int8: bool) -> None:
    """Make sure that nothing is asked for which only the integers of a spiking network have."""
    standard = ExportSettings()
    # ONNX Runtime's quantization can leave out read-outs as well.
    for name in ('weights', 'stem') if to_int8 else ('weights', 'stem', 'heads'):
        value = getattr(settings, name)
        if value != getattr(standard, name):
            what = 'the int8 file of a ReLU twin' if to_int8 else 'a file in float32'
            raise ValueError(f'export: {name}={value} has no effect on {what}; leave it out')


def _hash(path: str | Path | None) -> str | None:
    if path is None or not Path(path).is_file():
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
