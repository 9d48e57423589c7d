"""Turns a detector into an ONNX graph."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript  # noqa: F401  PyTorch imports it when it exports, too late to say what is missing
import torch
from torch import nn

from .exported_detector import ExportedDetector
from .onnx_pass import Rounded, use_integers

_LARGEST_BATCH = 4096
_TRACED_BATCH = 3  # another than that of the check, which finds what depends on it


def to_onnx(detector: ExportedDetector) -> tuple[onnx.ModelProto, list[str]]:
    """Export a detector, folded or not, with a dynamic batch.

    Args:
        detector: What to export, float32.

    Returns:
        The model, of input ``image`` and outputs ``boxes`` and ``scores``; and the names of the tensors of
        spikes, none where the detector is not folded.

    Raises:
        ValueError: If the graph takes batches of one size alone.
    """
    image = torch.zeros(_TRACED_BATCH, 3, *detector.size, dtype=torch.uint8)
    batch = torch.export.Dim('N', min=1, max=_LARGEST_BATCH)
    with quiet():
        program = torch.onnx.export(
            detector.eval(),
            (image,),
            dynamo=True,
            input_names=['image'],
            output_names=['boxes', 'scores'],
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    names = use_integers(program.model, _rounded_weights(detector))
    program.model.producer_name = 'hoyer_det'
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces with paths of this machine
        node.doc_string = None
    for value in program.model.graph.initializers.values():
        value.metadata_props.clear()
    program.model.metadata_props.clear()
    program.model.graph.metadata_props.clear()
    model = ir.to_proto(program.model)
    onnx.checker.check_model(model)
    if model.graph.input[0].type.tensor_type.shape.dim[0].dim_value:
        raise ValueError(
            'export: the graph would take one size of batches alone; a layer keeps the number of images'
        )
    return model, names


def _rounded_weights(detector: nn.Module) -> dict[str, Rounded]:
    """Return integers and steps of rounded weights by the names that the exporter gives to the weights."""
    found = {}
    for name, module in detector.named_modules():
        if 'steps' in module._buffers:
            step = module.steps.numpy()
            integers = np.rint(module.weight.numpy() / step.reshape(-1, 1, 1, 1))
            found[f'{name}.weight'] = integers, step
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep from the user what the exporter and MMDetection's batched coders say about themselves."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
