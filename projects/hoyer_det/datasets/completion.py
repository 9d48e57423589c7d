"""Completes a config with what its data sets tell: files, classes, sizes of the heads."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from .coco_format import CocoFormatDataset
from .evaluators import complete_evaluators
from .faults import shorten
from .voc_format import VOCFormatDataset

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_KINDS = {'VOCFormatDataset': VOCFormatDataset, 'CocoFormatDataset': CocoFormatDataset}
# Parts of a detector whose num_classes does not count the classes of the data set: a proposal head
# knows one, a backbone those it was pre-trained on, a semantic head those of its own maps.
_OTHER_CLASSES = ('backbone', 'rpn_head', 'semantic_head')


def complete_config(cfg: Config) -> None:
    """Write into a config, in place, what its VOC- and COCO-format data sets find by themselves.

    The data sets need none of it (they read their classes and choose their split themselves), the model
    does: each ``num_classes`` that counts the classes of the data set is set, see
    :func:`set_num_classes`. A data set without ``data_root`` gets the config's, one in COCO format
    without ``ann_file`` or folder of images those that the config names ``train_ann``,
    ``train_images``, ``val_ann`` and ``val_images`` (for testing: what is used for validation).
    Classes given to the first data set hold for all. COCO's metric takes its ground truth from the
    samples, see :func:`~hoyer_det.datasets.evaluators.complete_evaluators`. A complete config stays as it is.

    Args:
        cfg: Config of a detector.

    Raises:
        FileNotFoundError: If a folder, a list of images or an annotation file is missing.
        ValueError: If data sets differ in their classes, an annotation file is faulty, or COCO's metric
            reads another file than the data set.
    """
    splits = own_datasets(cfg)
    datasets = [dataset for split in splits.values() for dataset in split]
    if not datasets:
        return
    classes = complete_splits(cfg, splits)
    _warn_of_overlap(splits)
    set_num_classes(cfg.get('model'), len(classes))
    used = [
        ', '.join(dict.fromkeys(_split_name(dataset.ann_file) for dataset in splits[key]))
        or 'nothing'
        for key in ('train_dataloader', 'test_dataloader')
    ]
    names = shorten(', '.join(classes), 300)
    print_log(
        f'{datasets[0].data_root}: {len(classes)} classes ({names}), trained on {used[0]}, '
        f'evaluated on {used[1]}{", what is trained on" if used[0] == used[1] else ""}'
    )


def _split_name(ann_file: str) -> str:
    return Path(ann_file).stem if ann_file.endswith('.txt') else ann_file


def own_datasets(cfg: Config) -> dict[str, list[Any]]:
    """Give the VOC- and COCO-format data sets of a config what it names outside of them, in place.

    Args:
        cfg: Config of a detector.

    Returns:
        The configs of the VOC- and COCO-format data sets of each loader.
    """
    splits = {
        key: [dataset for dataset in iterate_datasets(cfg, (key,)) if dataset.type in _KINDS]
        for key in LOADERS
    }
    datasets = [dataset for split in splits.values() for dataset in split]
    for dataset in datasets:
        if dataset.get('data_root') is None:
            dataset.data_root = cfg.get('data_root')
    if datasets:
        _name_coco_files(cfg, splits)
        given = (datasets[0].get('metainfo') or {}).get('classes')
        for dataset in datasets if given else ():
            _give_classes(dataset, given)
    return splits


def _give_classes(dataset: Any, classes: Sequence[str]) -> None:
    dataset.metainfo = {**(dataset.get('metainfo') or {}), 'classes': classes}


def iterate_datasets(cfg: Config, loaders: Sequence[str] = LOADERS) -> Iterator[Any]:
    """Yield the configs of all data sets, looking into wrappers such as ``RepeatDataset``.

    Args:
        cfg: Config.
        loaders: Keys of the data loaders to look at; those that the config lacks are skipped.
    """

    def walk(dataset: Any) -> Iterator[Any]:
        inner = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets', [])
        if not inner:
            yield dataset
        for item in inner:
            yield from walk(item)

    for key in loaders:
        if cfg.get(key) is not None:
            yield from walk(cfg[key]['dataset'])


def set_num_classes(model: Any, number: int) -> None:
    """Set every ``num_classes`` of a model that counts the classes of the data set, in place.

    Proposal heads, backbones and semantic heads keep theirs, and so does a class-agnostic head: one of
    1 class beside heads of more.

    Args:
        model: Config of a detector, or of a wrapper around one.
        number: Number of classes of the data set.
    """
    heads = list(_counting_nodes(model))
    agnostic = {1} if any(head['num_classes'] != 1 for head in heads) else set()
    for head in heads:
        if head['num_classes'] not in agnostic:
            head['num_classes'] = number


def _counting_nodes(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        if 'num_classes' in node:
            yield node
        for key, value in node.items():
            if key not in _OTHER_CLASSES:
                yield from _counting_nodes(value)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _counting_nodes(item)


def complete_splits(cfg: Config, splits: dict[str, list[Any]]) -> tuple[str, ...]:
    """Complete all data sets and COCO's metric, and return the classes, which the data sets must share.

    Args:
        cfg: Config of a detector, changed in place.
        splits: What :func:`own_datasets` returned of it, with at least one data set.

    Raises:
        FileNotFoundError: If a folder, a list of images or an annotation file is missing.
        ValueError: If data sets differ in their classes, an annotation file is faulty, or COCO's metric
            reads another file than the data set.
    """
    classes = _complete_datasets([dataset for split in splits.values() for dataset in split])
    numbers = {key: len(list(iterate_datasets(cfg, (key,)))) for key in LOADERS}
    complete_evaluators(cfg, splits, numbers)
    return classes


def _complete_datasets(datasets: list[Any]) -> tuple[str, ...]:
    known: dict[str, tuple[str, ...]] = {}  # where classes are read from: once is enough
    for dataset in datasets:
        kind = _KINDS[dataset.type]
        source = os.path.join(dataset.data_root or '', kind.class_source(dataset))
        if source in known:
            _give_classes(dataset, known[source])
        kind.complete(dataset)
        known[source] = dataset.metainfo['classes']
    (first, classes), *others = known.items()
    for other, names in others:
        if names != classes:
            missing = [name for name in classes if name not in names]
            unknown = [name for name in names if name not in classes]
            raise ValueError(
                f'{other}: its classes are not those of {first}; '
                f'it lacks {missing or "none"}, has {unknown or "none"} besides'
                + ('' if missing or unknown else f', but orders them {names} and not {classes}')
                + '; give all the same, or choose some that all have: '
                '`--cfg-options train_dataloader.dataset.metainfo.classes=[A,B]`'
            )
    return classes


def _warn_of_overlap(splits: dict[str, list[Any]]) -> None:
    """Say in one line where images that are trained on are evaluated, too, by another file."""
    trained = {_file(d): d for d in splits['train_dataloader']}
    evaluated = {_file(d): d for key in LOADERS[1:] for d in splits[key] if _file(d) not in trained}
    images, others = (
        {image for d in found.values() for image in _KINDS[d.type].listed_images(d)}
        for found in (trained, evaluated)
    )
    shared = images & others
    if shared:
        print_log(
            f'{len(shared)} images are trained on and evaluated, e.g. {min(shared)}: the evaluation says '
            'too much; `hoyer-det check-data --write-clean` takes them out of training',
            level=logging.WARNING,
        )


def _file(dataset: Any) -> str:
    return os.path.normpath(os.path.join(dataset.data_root or '', dataset.ann_file))


def _name_coco_files(cfg: Config, splits: dict[str, list[Any]]) -> None:
    """Put the config's names of files and folders where a data set in COCO format has None."""
    # Taken out of the config: in a completed one they would change nothing.
    names = {
        f'{split}_{kind}': cfg.pop(f'{split}_{kind}', None)
        for split in ('train', 'val')
        for kind in ('ann', 'images')
    }
    for key, datasets in splits.items():
        source = 'train' if key == 'train_dataloader' else 'val'
        for dataset in datasets:
            if dataset.type != 'CocoFormatDataset':
                continue
            for kind, node, field in (
                ('ann', dataset, 'ann_file'),
                ('images', dataset.setdefault('data_prefix', {}), 'img'),
            ):
                name = f'{source}_{kind}'
                if node.get(field) is None:
                    node[field] = names[name]
                if node[field] is not None and not isinstance(node[field], str):
                    raise ValueError(
                        f'{name}: is {node[field]!r}, but must be a path in data_root; give it with '
                        f'`--cfg-options {name}=PATH`'
                    )
                if key == 'val_dataloader':
                    names[name] = node[field]  # also where the data set itself names it
