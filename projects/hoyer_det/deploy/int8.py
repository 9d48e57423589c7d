"""Makes int8 models of ReLU twins by ONNX Runtime's static quantization, as a fair comparison."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hoyer_det_runtime.pixels import read_image
from hoyer_det_runtime.preprocessing import prepare
from mmdet.registry import DATASETS
from mmengine.config import Config

_TYPES = ('Conv', 'MaxPool', 'Relu', 'Concat', 'Add', 'Resize')


def training_images(cfg: Config, number: int = 64) -> Iterator[np.ndarray]:
    """Return the first images of a config's training data, without augmentation, to calibrate with.

    Args:
        cfg: Completed config with a ``train_dataloader``.
        number: How many, if there are so many.

    Returns:
        BGR pixels, uint8 (height, width, 3) each.

    Raises:
        ValueError: If the number is below 1 or there is no training data.
    """
    if number < 1:
        raise ValueError(f'export: {number} calibration images; at least 1 is needed')
    if not cfg.get('train_dataloader'):
        raise ValueError(
            'export: the config has no train_dataloader to take calibration images from'
        )
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    indices = range(min(number, len(dataset)))
    return (read_image(dataset.get_data_info(index)['img_path']) for index in indices)


def quantizer(
    images: Iterable[np.ndarray], heads: str = 'int8'
) -> Callable[[Path, dict[str, Any]], onnx.ModelProto]:
    """Return a function that makes an int8 model of a float32 file, for :func:`export`.

    It writes beside the file, which is to lie in a folder that is removed afterwards.

    Weights are int8 with a scale per output channel, activations uint8 with the range of the calibration
    images. The decoding of boxes stays in float32. Weights keep to 7 of their 8 bits, so that CPUs without
    VNNI, which add two products in int16, do not saturate.

    Args:
        images: Calibration images, BGR pixels, uint8 (height, width, 3) each.
        heads: ``'fp32'`` leaves the read-outs in float32.
    """

    def quantize(path: Path, given: dict[str, Any]) -> onnx.ModelProto:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self._images = iter(images)

            def get_next(self) -> dict[str, np.ndarray] | None:
                pixels = next(self._images, None)
                return None if pixels is None else dict(image=prepare(pixels, given)[0][None])

        out = path.with_name(f'{path.name}.int8')
        quantize_static(
            str(path),
            str(out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_TYPES),
            nodes_to_exclude=_decoding(onnx.load(str(path)), heads),
            per_channel=True,
            reduce_range=True,
            extra_options=dict(WeightSymmetric=True, ActivationSymmetric=False),
        )
        return onnx.load(str(out))

    return quantize


def _decoding(model: onnx.ModelProto, heads: str) -> list[str]:
    """Return the names of the nodes behind the last convolutions, with ``'fp32'`` those as well."""
    before: set[str] = set()  # tensors that a convolution still reads, directly or not
    names = []
    for node in reversed(model.graph.node):
        leads_on = any(out in before for out in node.output)
        conv = node.op_type == 'Conv'
        if leads_on or conv:
            before.update(node.input)
        if not leads_on and (not conv or heads == 'fp32'):
            names.append(node.name)
    return names
