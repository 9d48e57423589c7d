"""Loads a config and completes what the data set itself tells: place, classes, splits."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

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
    chosen by :func:`hoyer_det.datasets.read_splits`.

    Args:
        path: Config file.
        options: Dotted keys and values, as given on a command line.

    Returns:
        The completed config; dumped to a file it needs no further completion.

    Raises:
        FileNotFoundError: If the config, or the folder of a VOC-format data set, does not exist.
        ValueError: If ``data_root`` is given for a config that has none, or an option begins with a
            key that nothing reads.
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
