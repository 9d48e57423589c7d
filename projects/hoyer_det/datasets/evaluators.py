"""Gives COCO's metric the objects of the data set that is evaluated as its ground truth."""

import inspect
import os
from collections.abc import Iterator
from typing import Any

from mmdet.datasets.transforms import PackDetInputs
from mmengine.config import Config

_METRICS = ('CocoMetric', 'FasterCocoMetric')
_META_KEYS = inspect.signature(PackDetInputs).parameters['meta_keys'].default
_READ = ('img_id', 'ori_shape', 'instances')  # by the metric, from each sample


def complete_evaluators(
    cfg: Config, splits: dict[str, list[Any]], datasets: dict[str, int]
) -> None:
    """Let ``CocoMetric`` count what the data set has: its classes in their order, its boxes, its images.

    Read from the annotation file, categories would be in the order of the file, and images that the data
    set leaves out (``indices``) would count as missed. So boxes are taken from the samples, in place; for
    masks the file stays, with its categories sorted.

    Args:
        cfg: Config of a detector, changed in place.
        splits: The configs of the VOC- and COCO-format data sets of each loader, with their files.
        datasets: The number of all data sets of each loader. Where there are others, or several have a file
            that holds all, the metric stays as it is.

    Raises:
        ValueError: If ``ann_file`` is another file than that of the data set.
    """
    for split in ('val', 'test'):
        loader = f'{split}_dataloader'
        own = splits[loader]
        if not own or len(own) != datasets[loader]:
            continue
        for key, metric in _coco_metrics(cfg, f'{split}_evaluator'):
            file = metric.get('ann_file')
            if file is not None and (len(own) > 1 or own[0].type != 'CocoFormatDataset'):
                continue
            if file is not None:
                _check_file(f'{key}.ann_file', file, loader, own[0])
                if metric.get('metric', 'bbox') not in ('bbox', ['bbox']):
                    metric['sort_categories'] = True
                    continue
                metric['ann_file'] = None
            for pipeline in (
                *(dataset.get('pipeline') for dataset in own),
                cfg.get('tta_pipeline'),
            ):
                _hand_on(pipeline)


def _coco_metrics(cfg: Config, key: str) -> Iterator[tuple[str, Any]]:
    """Yield each evaluator of a split that is COCO's metric, behind its key."""
    evaluators = cfg.get(key) or []
    if isinstance(evaluators, dict):
        evaluators = [evaluators]
    else:
        key += '.{}'
    for index, evaluator in enumerate(evaluators):
        if isinstance(evaluator, dict) and evaluator.get('type') in _METRICS:
            yield key.format(index), evaluator


def _check_file(key: str, file: str, loader: str, dataset: Any) -> None:
    own = os.path.join(dataset.get('data_root') or '', dataset.ann_file)
    if os.path.realpath(file) != os.path.realpath(own):
        raise ValueError(
            f'{key}={file}: is not the file that {loader} evaluates, {own}; name that one, or leave ann_file '
            'out'
        )


def _hand_on(steps: Any) -> None:
    """Let every ``PackDetInputs`` of a pipeline hand on what the metric reads."""
    if isinstance(steps, list | tuple):
        for step in steps:
            _hand_on(step)
    elif isinstance(steps, dict):
        if steps.get('type') == 'PackDetInputs':
            keys = tuple(steps.get('meta_keys', _META_KEYS))
            steps['meta_keys'] = (*keys, *(key for key in _READ if key not in keys))
        _hand_on(steps.get('transforms'))
