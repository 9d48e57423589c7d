"""Loads a config and completes what the data set itself tells: place, classes, splits."""

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from .datasets.coco_format import read_categories
from .datasets.voc_format import read_classes, read_splits

_DOWNLOADS = {'VOCDataset': 'voc2007 voc2012', 'CocoDataset': 'coco'}
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# What MMEngine and MMDetection read from a config that need not be in it already.
_KNOWN_KEYS = {
    *inspect.signature(Runner.__init__).parameters,
    *('activation_checkpointing', 'compile', 'efficient_conv_bn_eval', 'find_unused_parameters'),
    *('model_wrapper_cfg', 'sync_bn', 'tta_model'),
}


def load_config(path: str | Path, options: dict[str, Any] | None = None) -> Config:
    """Load a config file and make it fit the data set it names.

    ``options`` are merged as by ``Config.merge_from_dict``, with one addition: an option
    ``data_root`` moves every path of the config that lies below the file's own ``data_root``. For
    data sets of type ``VOCFormatDataset`` the classes are read from the annotations, written into
    every split and into each ``num_classes`` of the model, and splits without an ``ann_file`` are
    chosen by :func:`hoyer_det.datasets.read_splits`. Likewise for ``CocoFormatDataset``: the classes
    are those of the training annotations, and data sets and evaluators without an ``ann_file`` or a
    folder of images get those that the config names ``train_ann``, ``train_images``, ``val_ann`` and
    ``val_images`` (for testing: what is used for validation).

    Args:
        path: Config file.
        options: Dotted keys and values, as given on a command line.

    Returns:
        The completed config; dumped to a file it needs no further completion.

    Raises:
        FileNotFoundError: If the config, the folder of a VOC- or COCO-format data set, or an
            annotation file that the classes are read from, does not exist.
        ValueError: If ``data_root`` is given for a config that has none, an option begins with a key
            that nothing reads, or annotation files in COCO format have other categories than those of
            the training data.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such config file; see the folder configs/')
    cfg = Config.fromfile(path)
    options = dict(options or {})
    for key in options:
        if key.split('.')[0] not in {*cfg, *_KNOWN_KEYS} and key != 'data_root':
            raise ValueError(
                f'option {key}: {path} has no {key.split(".")[0]!r}; check the spelling'
            )
    if 'data_root' in options:
        _move_data(cfg, str(options.pop('data_root')), path)
    cfg.merge_from_dict(options)
    _complete_voc_format(cfg)
    _complete_coco_format(cfg)
    return cfg


def check_data(cfg: Config, loaders: tuple[str, ...] = _LOADERS) -> None:
    """Make sure that the annotations of every data set named by the config are there.

    Args:
        cfg: Completed config.
        loaders: Keys of the data loaders to look at.

    Raises:
        FileNotFoundError: Names the folder, and the command that fetches the data set.
    """
    for dataset in _datasets(cfg, loaders):
        root, name = dataset.get('data_root'), dataset.get('ann_file')
        if root is None or name is None or dataset.type == 'ShapesDataset':
            continue
        if not (Path(root) / name).exists():
            download = _DOWNLOADS.get(dataset.type)
            remedy = f'run `python tools/download_data.py {download}` or ' if download else ''
            raise FileNotFoundError(
                f'{Path(root) / name}: missing, the data set is not in {root}; {remedy}'
                'point to it with `--cfg-options data_root=FOLDER`'
            )


def _datasets(cfg: Config, loaders: tuple[str, ...] = _LOADERS) -> Iterator[Any]:
    """Yield the configs of all data sets, looking into wrappers such as ``RepeatDataset``."""

    def walk(dataset: Any) -> Iterator[Any]:
        inner = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets', [])
        if not inner:
            yield dataset
        for item in inner:
            yield from walk(item)

    for key in loaders:
        if cfg.get(key) is not None:
            yield from walk(cfg[key]['dataset'])


def _move_data(cfg: Config, new: str, path: str | Path) -> None:
    """Replace the data root wherever a value of the config begins with it."""
    old = cfg.get('data_root')
    if not old:
        raise ValueError(f'{path}: has no data_root to replace; set the data sets one by one')
    old, new = old.rstrip('/') + '/', new.rstrip('/') + '/'

    def move(value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                value[key] = move(value[key])
        elif isinstance(value, list | tuple):
            return type(value)(move(item) for item in value)
        elif isinstance(value, str) and f'{value}/'.startswith(old):
            return new + value[len(old) :]
        return value

    move(cfg._cfg_dict)


def _complete_voc_format(cfg: Config) -> None:
    datasets = [d for d in _datasets(cfg) if d.type == 'VOCFormatDataset']
    if not datasets:
        return
    root = datasets[0].data_root
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f'{root}: no such folder; point to one in Pascal VOC layout with '
            '`--cfg-options data_root=FOLDER`'
        )
    classes = (datasets[0].get('metainfo') or {}).get('classes') or read_classes(root)
    classes = (classes,) if isinstance(classes, str) else tuple(classes)
    if any(d.get('ann_file') is None for d in datasets):
        train, test = read_splits(root)
    for key in _LOADERS:
        for dataset in _datasets(cfg, (key,)):
            dataset.metainfo = dict(classes=classes)
            if dataset.get('ann_file') is None:
                split = train if key == 'train_dataloader' else test
                dataset.ann_file = f'ImageSets/Main/{split}.txt'
    _set_num_classes(cfg.model, len(classes))
    used = [
        next(_datasets(cfg, (key,))).ann_file for key in ('train_dataloader', 'test_dataloader')
    ]
    print_log(
        f'{root}: {len(classes)} classes ({", ".join(classes)}), trained on {Path(used[0]).stem}, '
        f'evaluated on {Path(used[1]).stem}'
    )


def _complete_coco_format(cfg: Config) -> None:
    splits = {
        split: [
            d for d in _datasets(cfg, (f'{split}_dataloader',)) if d.type == 'CocoFormatDataset'
        ]
        for split in ('train', 'val', 'test')
    }
    datasets = [dataset for split in splits.values() for dataset in split]
    if not datasets:
        return
    root = datasets[0].get('data_root') or '.'
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f'{root}: no such folder; point to one with annotations in COCO format with '
            '`--cfg-options data_root=FOLDER`'
        )
    _set_coco_files(cfg, splits)
    classes = (datasets[0].get('metainfo') or {}).get('classes')
    classes = (
        (classes,) if isinstance(classes, str) else tuple(classes or _common_classes(datasets))
    )
    for dataset in datasets:
        dataset.metainfo = {**(dataset.get('metainfo') or {}), 'classes': classes}
    _set_num_classes(cfg.model, len(classes))
    _set_coco_evaluators(cfg, splits)
    used = [
        ', '.join(d.ann_file for d in splits[split]) or 'nothing' for split in ('train', 'test')
    ]
    print_log(
        f'{root}: {len(classes)} classes ({", ".join(classes)}), trained on {used[0]}, evaluated on '
        f'{used[1]}{", what is trained on" if used[0] == used[1] else ""}'
    )


def _set_coco_files(cfg: Config, splits: dict[str, list[Any]]) -> None:
    """Put the config's names of files and folders where a data set has None."""
    # Taken out of the config: in a completed one they would change nothing.
    names = {
        f'{split}_{kind}': cfg.pop(f'{split}_{kind}', None)
        for split in ('train', 'val')
        for kind in ('ann', 'images')
    }
    for split, datasets in splits.items():
        source = 'train' if split == 'train' else 'val'
        for dataset in datasets:
            for kind, node, key in (
                ('ann', dataset, 'ann_file'),
                ('images', dataset.setdefault('data_prefix', {}), 'img'),
            ):
                name = f'{source}_{kind}'
                if node.get(key) is None:
                    node[key] = names[name]
                if not isinstance(node[key], str):
                    raise ValueError(
                        f'{name}: is {node[key]!r}, but must be a path in data_root; give it with '
                        f'`--cfg-options {name}=PATH` (a number as ./NUMBER)'
                    )
                if split == 'val':
                    names[name] = node[key]  # also where the data set itself names it


def _coco_file(dataset: Any) -> str:
    return os.path.join(dataset.get('data_root') or '', dataset.ann_file)


def _common_classes(datasets: list[Any]) -> tuple[str, ...]:
    """Return the categories of the first data set, which all others must share."""
    first, *others = dict.fromkeys(_coco_file(dataset) for dataset in datasets)
    classes = read_categories(first)
    for other in others:
        names = read_categories(other)
        if names == classes:
            continue
        missing = [name for name in classes if name not in names]
        unknown = [name for name in names if name not in classes]
        raise ValueError(
            f'{other}: its categories are not those of {first}; '
            f'it lacks {missing or "none"}, has {unknown or "none"} besides'
            + ('' if missing or unknown else f', but its ids order them {names} and not {classes}')
            + '; give all files the same, or choose some that all have: '
            '`--cfg-options train_dataloader.dataset.metainfo.classes=[A,B]`'
        )
    return classes


def _set_coco_evaluators(cfg: Config, splits: dict[str, list[Any]]) -> None:
    """Let COCO's metrics read the annotations of the data set that they evaluate."""
    for split in ('val', 'test'):
        if len(splits[split]) != 1:
            continue
        evaluators = cfg.get(f'{split}_evaluator') or []
        for evaluator in [evaluators] if isinstance(evaluators, dict) else evaluators:
            if evaluator['type'] in ('CocoMetric', 'FasterCocoMetric'):
                if evaluator.get('ann_file') is None:
                    evaluator['ann_file'] = _coco_file(splits[split][0])
                evaluator.setdefault('sort_categories', True)  # as CocoFormatDataset sorts them


def _set_num_classes(node: Any, number: int) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == 'num_classes':
                node[key] = number
            else:
                _set_num_classes(value, number)
    elif isinstance(node, list | tuple):
        for item in node:
            _set_num_classes(item, number)


def dataset_classes(cfg: Config) -> tuple[str, ...] | None:
    """Return the classes that the config gives for its test data, None where it gives none."""
    for dataset in _datasets(cfg, ('test_dataloader',)):
        return (dataset.get('metainfo') or {}).get('classes')
    return None
