"""Registered metrics."""

from .faster_coco_metric import FasterCocoMetric
from .top_k_accuracy import TopKAccuracy

__all__ = ['FasterCocoMetric', 'TopKAccuracy']
