"""An exported file in the place of a detector in MMEngine's test loop."""

import time
from typing import Any

import hoyer_det_runtime
import torch
from mmdet.models.utils.misc import samplelist_boxtype2tensor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.structures import InstanceData


@MODELS.register_module()
class ExportedModel(BaseModel):
    """Detects by the runtime; what the test pipeline made of an image is not used, only its file.

    Args:
        path: File that ``hoyer-det export`` wrote.
        engine: Name of an engine of the runtime.
        threads: Number of threads; by default the engine's own choice.

    Attributes:
        milliseconds: Time of each image, with reading, resizing and NMS.
    """

    def __init__(self, path: str, engine: str = 'onnxruntime', threads: int | None = None) -> None:
        super().__init__()
        self.runtime = hoyer_det_runtime.load(path, engine, threads)
        self.milliseconds: list[float] = []

    def forward(
        self, inputs: Any, data_samples: list[DetDataSample], mode: str = 'predict'
    ) -> list[DetDataSample]:
        """Detect on the files that the samples name."""
        samplelist_boxtype2tensor(data_samples)  # as a detector's preprocessor does
        for sample in data_samples:
            start = time.perf_counter()
            found = self.runtime.detect(sample.img_path, score_thr=0.0)
            self.milliseconds.append(1000 * (time.perf_counter() - start))
            sample.pred_instances = InstanceData(
                bboxes=torch.from_numpy(found.boxes),
                scores=torch.from_numpy(found.scores),
                labels=torch.from_numpy(found.labels),
            )
        return data_samples

    def test_step(self, data: dict[str, Any]) -> list[DetDataSample]:
        """Detect on a batch of a data loader."""
        return self.forward(**data)

    val_step = test_step
