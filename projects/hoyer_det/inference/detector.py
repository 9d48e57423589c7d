"""A trained detector ready for images: MMDetection's ``DetInferencer``, built from a checkpoint alone."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import hoyer_det_runtime
import numpy as np
import torch
from hoyer_det_runtime import Detections, Model
from hoyer_det_runtime.detections import check_threshold
from hoyer_det_runtime.drawing import draw
from hoyer_det_runtime.pixels import as_pixels, check_pixels
from mmdet.apis import DetInferencer
from mmdet.models.detectors.base import BaseDetector
from mmdet.utils import get_test_pipeline_cfg
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from ..engine.checkpoint import build_trained, read_finite
from ..errors import named
from ..weights.reading import Checkpoint
from ..weights.stored_config import stored_config
from ..weights.zoo import checkpoint_path
from .sources import find_sources


def load(
    model: str | Path,
    device: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
) -> 'Detector | Model':
    """Load a trained detector, or one that was exported.

    The config and the classes come from the checkpoint; the data it was trained on are not needed.

    Args:
        model: Checkpoint file, the name of a model of the zoo (``hoyer-det zoo`` lists them), or an
            exported file (``.onnx``).
        device: Of a checkpoint, such as ``cpu`` or ``cuda:0``; by default the GPU where there is one.
        engine: Of an exported file: ``onnxruntime`` (the default), ``openvino`` or ``spikes``. For a
            checkpoint it is ``torch``.
        threads: Of an exported file; by default the engine's own choice.

    Raises:
        FileNotFoundError: If there is no such file or model.
        ValueError: If it is no checkpoint of a detector, holds no config, or its weights are damaged;
            if the device cannot be used; or if engine or threads and file do not fit.

    Example:
        >>> from hoyer_det import load
        >>> model = load('ssd_shapes')
        >>> results = model.predict('street.jpg')  # doctest: +SKIP
        >>> results[0].names, results[0].boxes  # doctest: +SKIP
    """
    exported = Path(model).suffix.lower() == '.onnx'
    if engine is not None and exported != (engine != 'torch'):
        wanted = 'a checkpoint (.pth)' if exported else 'an exported file (`hoyer-det export`)'
        raise ValueError(f'{model}: the engine {engine} needs {wanted}')
    if not exported:
        if threads is not None:
            raise ValueError(
                f'{model}: threads {threads} is for exported files; a checkpoint takes '
                'torch.set_num_threads'
            )
        return Detector(model, device)
    if device not in (None, 'cpu'):
        raise ValueError(f'{model}: exported files run on the CPU; leave out device {device}')
    return hoyer_det_runtime.load(model, engine or 'onnxruntime', threads)


class Detector(DetInferencer):
    """MMDetection's ``DetInferencer``, built from a checkpoint alone, with results as NumPy arrays.

    Calling it works as MMDetection documents it. :meth:`predict` is shorter and takes videos as well.

    Args:
        model: As for :func:`load`.
        device: As for :func:`load`.

    Attributes:
        classes: Names of the classes in the order of their labels.
        path: The checkpoint file.
    """

    def __init__(self, model: str | Path, device: str | None = None) -> None:
        self.path = checkpoint_path(model)
        checkpoint = read_finite(str(self.path))
        cfg = stored_config(checkpoint.meta, self.path)
        _check_device(device)
        super().__init__(_for_inference(cfg), checkpoint, device, show_progress=False)
        self.classes: tuple[str, ...] = self.model.dataset_meta['classes']

    def _init_model(self, cfg: Config, weights: Checkpoint, device: str = 'cpu') -> nn.Module:
        """Build and load the model; MMDetection's builds the data set for its palette."""
        model = build_trained(cfg, weights)
        if not isinstance(model, BaseDetector):
            raise ValueError(
                f'{self.path}: holds a {type(model).__name__}, which is no detector of boxes'
            )
        if not model.dataset_meta['classes']:
            raise ValueError(f'{self.path}: does not name its classes (meta.dataset_meta.classes)')
        model.cfg = cfg
        return model.to(device)

    def _init_collate(self, cfg: Config) -> Callable:
        """Return what every detector's batches are made with; looking it up logs a warning."""
        return pseudo_collate

    def _init_visualizer(self, cfg: Config) -> DetLocalVisualizer:
        """Return a visualizer that goes with the detector; the registry would keep it for the process."""
        visualizer = DetLocalVisualizer('detections')  # the config's backends would want a folder
        visualizer.dataset_meta = self.model.dataset_meta
        return visualizer

    def predict(
        self,
        inputs: str | Path | int | np.ndarray | Sequence[str | Path | int | np.ndarray],
        score_thr: float = 0.3,
    ) -> list[Detections]:
        """Detect on images, folders, globs and videos.

        Args:
            inputs: One or a list of them: image file, folder, glob, video file, BGR pixels as uint8
                (height, width, 3).
            score_thr: Least score of a detection that is returned.

        Returns:
            The detections of each image, or each frame, in order.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If an image cannot be read, or a folder or video has none.
        """
        return list(self.stream(inputs, score_thr))

    def stream(
        self,
        inputs: str | Path | int | np.ndarray | Sequence[str | Path | int | np.ndarray],
        score_thr: float = 0.3,
    ) -> Iterator[Detections]:
        """Yield what :meth:`predict` returns image by image; also from a camera, by its number."""
        for item in inputs if isinstance(inputs, list | tuple) else [inputs]:
            if isinstance(item, np.ndarray):
                yield self.detect(item, score_thr)
                continue
            for source in find_sources([item]):
                for frame in source.frames():
                    yield self.detect(frame.image, score_thr, source.name, frame.index)
                if source.incomplete:
                    warnings.warn(source.incomplete, stacklevel=2)

    def detect(
        self,
        image: str | Path | np.ndarray,
        score_thr: float = 0.3,
        source: str | None = None,
        frame: int | None = None,
    ) -> Detections:
        """Detect on one image.

        Args:
            image: File, or BGR pixels as uint8 (height, width, 3).
            score_thr: Least score of a detection that is returned.
            source: Goes into the result; by default the file, or ``'array'``.
            frame: Goes into the result.

        Raises:
            ValueError: If the file cannot be read as an image, the array is none, the image is too thin
                to be resized, or ``score_thr`` is not from 0 to 1.
        """
        check_threshold(score_thr)
        if source is None:
            source = 'array' if isinstance(image, np.ndarray) else str(image)
        if isinstance(image, np.ndarray):
            check_pixels(image)
        else:
            image = str(image)  # the pipeline takes no Path
        try:
            data = self.pipeline(image)
        except Exception as error:
            pixels = as_pixels(image)  # names the file, if that is the reason
            if not isinstance(error, cv2.error):
                raise
            height, width = pixels.shape[:2]
            raise ValueError(
                f'{image if isinstance(image, str) else source}: {width} x {height} pixels cannot be resized '
                f'for this network ({error.err})'
            ) from error
        (sample,) = self.forward(self.collate_fn([data]))
        found = sample.pred_instances.numpy()
        kept = np.flatnonzero(found.scores >= score_thr)
        kept = kept[np.argsort(-found.scores[kept], kind='stable')]
        return Detections(
            boxes=np.asarray(found.bboxes, np.float32)[kept],
            scores=found.scores[kept].astype(np.float32),
            labels=found.labels[kept],
            classes=self.classes,
            size=tuple(sample.ori_shape[:2]),
            source=source,
            frame=frame,
        )

    def draw(self, image: str | Path | np.ndarray, detections: Detections) -> np.ndarray:
        """Draw detections; small images are enlarged so that the labels can be read.

        Args:
            image: File, or BGR pixels as uint8 (height, width, 3).
            detections: What was found on it.

        Returns:
            BGR pixels, uint8 (height, width, 3).
        """
        return draw(as_pixels(image), detections)


def _check_device(device: str | None) -> None:
    if device is None:
        return
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device {device!r}: cannot be used here ({named(error)})') from error


def _for_inference(cfg: Config) -> Config:
    """Leave what builds the model and its test pipeline, which may be below wrappers of the data set."""
    try:
        model, pipeline = cfg.model, get_test_pipeline_cfg(cfg)
    except (AttributeError, KeyError, TypeError, RuntimeError):
        raise ValueError(
            f'{cfg.filename}: its config has no model, or no test_dataloader with a pipeline'
        ) from None
    content = dict(
        model=model,
        data_preprocessor=cfg.get('data_preprocessor'),
        test_dataloader=dict(dataset=dict(pipeline=pipeline)),
    )
    return Config(content, cfg_text=cfg.text, filename=cfg.filename)
