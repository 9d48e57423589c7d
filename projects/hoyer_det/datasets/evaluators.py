"""Makes sure that COCO's metric counts the objects of the data set that is evaluated."""

import os
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

_METRICS = ('CocoMetric', 'FasterCocoMetric')


def check_evaluators(cfg: Config, splits: dict[str, list[Any]]) -> None:
    """Compare the ground truth of ``CocoMetric`` with the data set, before hours of training.

    Args:
        cfg: Config of a detector.
        splits: The configs of the VOC- and COCO-format data sets of each loader, with their files.

    Raises:
        ValueError: If ``ann_file`` is another file than that of the data set, whose other images would count
            as missed; or if neither it nor the samples give the ground truth.
    """
    for split in ('val', 'test'):
        datasets = splits[f'{split}_dataloader']
        if len(datasets) != 1:  # of several, the metric may well read a file that holds all
            continue
        (dataset,) = datasets
        for key, evaluator in _coco_metrics(cfg, f'{split}_evaluator'):
            _check(key, evaluator.get('ann_file'), f'{split}_dataloader', dataset)


def _coco_metrics(cfg: Config, key: str) -> Iterator[tuple[str, Any]]:
    """Yield each evaluator of a split that is COCO's metric, with its key."""
    evaluators = cfg.get(key) or []
    if isinstance(evaluators, dict):
        evaluators = [evaluators]
    else:
        key += '.{}'
    for index, evaluator in enumerate(evaluators):
        if isinstance(evaluator, dict) and evaluator.get('type') in _METRICS:
            yield key.format(index), evaluator


def _check(key: str, file: str | None, loader: str, dataset: Any) -> None:
    if file is None:
        steps = [
            step for step in dataset.get('pipeline') or [] if step.get('type') == 'PackDetInputs'
        ]
        if any('instances' not in step.get('meta_keys', ()) for step in steps):
            raise ValueError(
                f'{key}: has no ground truth; give it the annotation file ({key}.ann_file=FILE), or add '
                f"'instances' to the meta_keys of PackDetInputs in {loader}.dataset.pipeline"
            )
    elif dataset.type == 'CocoFormatDataset':
        own = os.path.join(dataset.get('data_root') or '', dataset.ann_file)
        if os.path.realpath(file) != os.path.realpath(own):
            raise ValueError(
                f'{key}.ann_file={file}: is not the file that {loader} evaluates; name that one: {own}'
            )
