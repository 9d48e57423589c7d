"""A detector in an exported file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .description import read_description
from .detections import Detections, check_threshold
from .drawing import draw
from .engines import open_engine
from .nms import select
from .pixels import as_pixels
from .preprocessing import prepare


def load(path: str | Path, engine: str = 'onnxruntime', threads: int | None = None) -> 'Model':
    """Open an exported detector.

    Args:
        path: File that ``hoyer-det export`` wrote.
        engine: ``'onnxruntime'``, ``'openvino'`` or ``'spikes'``.
        threads: Number of threads; by default the engine's own choice.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no exported detector, or the engine cannot run it.

    Example:
        >>> model = load('ssd.onnx', threads=4)  # doctest: +SKIP
        >>> model.predict('street.jpg')[0].names  # doctest: +SKIP
    """
    return Model(path, engine, threads)


class Model:
    """A detector in an exported file.

    Args:
        path: As for :func:`load`.
        engine: As for :func:`load`.
        threads: As for :func:`load`.

    Attributes:
        description: What the file says about itself.
        classes: Names of the classes in the order of their labels.
        path: The file.
        engine: Computes boxes and scores.
    """

    def __init__(
        self, path: str | Path, engine: str = 'onnxruntime', threads: int | None = None
    ) -> None:
        self.path = Path(path)
        self.description = read_description(path)
        self.classes: tuple[str, ...] = tuple(self.description['classes'])
        self.engine = open_engine(engine, path, threads)

    def predict(
        self,
        images: str | Path | np.ndarray | Sequence[str | Path | np.ndarray],
        score_thr: float = 0.3,
    ) -> list[Detections]:
        """Detect on images.

        Args:
            images: One or a list of them: image file, or BGR pixels as uint8 (height, width, 3).
            score_thr: Least score of a detection that is returned.

        Raises:
            ValueError: If an image cannot be read.
        """
        many = images if isinstance(images, list | tuple) else [images]
        return [self.detect(image, score_thr) for image in many]

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
            score_thr: Least score of a detection.
            source: Goes into the result; by default the file, or ``'array'``.
            frame: Goes into the result.

        Raises:
            ValueError: If the image cannot be read, or ``score_thr`` is not from 0 to 1.
        """
        check_threshold(score_thr)
        if source is None:
            source = 'array' if isinstance(image, np.ndarray) else str(image)
        pixels = as_pixels(image)
        prepared, factors = prepare(pixels, self.description['input'])
        outputs = self.engine(prepared[None])
        size = pixels.shape[:2]
        boxes, scores, labels = select(
            outputs['boxes'][0],
            outputs['scores'][0],
            self.description['output'],
            factors,
            size,
            score_thr,
        )
        return Detections(
            boxes=boxes.astype(np.float32),
            scores=scores.astype(np.float32),
            labels=labels.astype(np.int64),
            classes=self.classes,
            size=tuple(size),
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
