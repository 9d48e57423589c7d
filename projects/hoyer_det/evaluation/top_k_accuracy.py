"""Top-k accuracy."""

from collections.abc import Sequence

from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from torch import Tensor


@METRICS.register_module()
class TopKAccuracy(BaseMetric):
    """Share of images whose class is among the k with the largest logits, as ``top1``, ``top5``, ...

    Equal logits count against the network, so one that answers the same to everything scores nothing.
    Every image counts once, also where the samplers of several processes repeat some to come out even.

    Args:
        topk: The numbers k.
        collect_device: Device on which the results of several processes meet.
        prefix: Prefix of the metric's names.
    """

    def __init__(
        self,
        topk: Sequence[int] = (1, 5),
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.topk = tuple(topk)

    def process(self, data_batch: dict[str, Tensor], data_samples: Sequence[Tensor]) -> None:
        """Note for each image how many other classes have a logit as large as its own class's."""
        for logits, label in zip(data_samples, data_batch['data_samples'], strict=True):
            smaller = int((logits < logits[int(label)]).sum())  # a NaN is not smaller
            self.results.append(len(logits) - 1 - smaller)

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        """Return the accuracies, between 0 and 1."""
        return {f'top{k}': sum(rank < k for rank in results) / len(results) for k in self.topk}
