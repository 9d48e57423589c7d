"""The twelve COCO numbers, computed by faster-coco-eval instead of pycocotools."""

from typing import Any
from unittest.mock import patch

from mmdet.evaluation.metrics import coco_metric
from mmdet.registry import METRICS


@METRICS.register_module()
class FasterCocoMetric(coco_metric.CocoMetric):
    """MMDetection's ``CocoMetric`` with the C++ evaluation of faster-coco-eval.

    It takes the same arguments and gives the same numbers, in a fraction of the time on large data
    sets: ``--cfg-options val_evaluator.type=FasterCocoMetric``, or ``val_evaluator.1.type`` where the
    evaluator is a list. It needs the extra ``fast-eval``: ``pip install -e '.[fast-eval]'``.

    Args:
        *args: As for ``CocoMetric``.
        **kwargs: As for ``CocoMetric``; ``use_mp_eval`` has no meaning here and must stay False.

    Raises:
        ImportError: If faster-coco-eval is not installed.
        ValueError: If ``use_mp_eval`` is True.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.use_mp_eval:
            raise ValueError('FasterCocoMetric: use_mp_eval must be False; it is threaded already')
        try:
            from faster_coco_eval import COCOeval_faster
        except ImportError as error:
            raise ImportError(
                "FasterCocoMetric: faster-coco-eval is not installed; `pip install -e '.[fast-eval]'`, "
                'or take CocoMetric'
            ) from error
        self._evaluation = COCOeval_faster

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics from the processed results."""
        # CocoMetric takes the class from its module and offers no other way to name one.
        with patch.object(coco_metric, 'COCOeval', self._evaluation):
            return super().compute_metrics(results)
