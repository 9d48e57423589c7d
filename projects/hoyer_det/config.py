"""Loads a config, moves its data and lets its data sets complete it."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from .config_keys import check_keys, check_options
from .datasets.completion import LOADERS, complete_config, iterate_datasets
from .shipped import config_path
from .twins import make_twin

_DOWNLOADS = {'VOCDataset': 'voc2007 voc2012', 'CocoDataset': 'coco'}


def load_config(
    path: str | Path,
    options: dict[str, Any] | None = None,
    twin: str | None = None,
    complete: bool = True,
) -> Config:
    """Load a config file and make it fit the data set it names.

    ``options`` are merged as by ``Config.merge_from_dict``, with one addition: an option
    ``data_root`` moves every path of the config that lies below the file's own ``data_root``. Then
    :func:`hoyer_det.datasets.complete_config` writes in what the data sets find by themselves.

    Args:
        path: Config file, or the name of a shipped one, see :func:`hoyer_det.config_path`.
        options: Dotted keys and values, as given on a command line.
        twin: Kind of the twin to take instead, see :func:`hoyer_det.twins.make_twin`; options are
            merged into the twin.
        complete: Whether to complete the config, which reads the annotations of data sets that
            bring classes of their own.

    Returns:
        The config; a completed one that is dumped to a file needs no further completion.

    Raises:
        FileNotFoundError: If the config, the folder of a VOC- or COCO-format data set, or an
            annotation file that the classes are read from, does not exist.
        ValueError: If the file cannot be read as a config, ``data_root`` is given for a config that
            has none, a key of the config is misspelt, an option would change nothing, annotation files
            in COCO format have other categories than those of the training data, or the config has no
            such twin.
    """
    if not Path(path).is_file():
        path = config_path(str(path))
    cfg = _read(path)
    if twin is not None:
        cfg = make_twin(cfg, twin)
    options = dict(options or {})
    check_keys(cfg, path)
    check_options(cfg, options, path)
    if 'data_root' in options:
        if not str(options['data_root']):
            raise ValueError('option data_root=: is empty; give a folder, or . for the current one')
        move_data(cfg, str(options.pop('data_root')), path)
    cfg.merge_from_dict(options)
    if complete:
        complete_config(cfg)
        _check_classes(cfg, options, path)
    return cfg


def _check_classes(cfg: Config, options: dict[str, Any], path: str | Path) -> None:
    """Refuse numbers of classes that the data set has replaced."""
    for option, value in options.items():
        if option.split('.')[-1] == 'num_classes':
            node: Any = cfg._cfg_dict
            for part in option.split('.'):
                node = node[int(part)] if isinstance(node, list | tuple) else node[part]
            if node != value:
                raise ValueError(
                    f'option {option}={value}: {path} takes the number of classes from its data set, '
                    f'which has {node}; leave the option out'
                )


def _read(path: str | Path) -> Config:
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # configs are code, so anything can happen
        text = ' '.join(str(error).split())
        raise ValueError(
            f'{path}: cannot be read as a config: {type(error).__name__}: {text}'
        ) from error
    # yapf takes up to a second for its line breaks, six times in a training. `fromfile` of MMEngine 0.10.7
    # does not hand on its argument `format_python_code`.
    object.__setattr__(cfg, '_format_python_code', False)
    return cfg


def check_data(cfg: Config, loaders: tuple[str, ...] = LOADERS) -> None:
    """Make sure that the annotations of every data set named by the config are there.

    Args:
        cfg: Completed config.
        loaders: Keys of the data loaders to look at.

    Raises:
        FileNotFoundError: Names the folder, and the command that fetches the data set.
    """
    for dataset in iterate_datasets(cfg, loaders):
        root, name = dataset.get('data_root'), dataset.get('ann_file')
        if root is None or name is None or dataset.type == 'ShapesDataset':
            continue
        if not (Path(root) / name).exists():
            download = _DOWNLOADS.get(dataset.type)
            remedy = f'run `hoyer-det download-data {download}` or ' if download else ''
            raise FileNotFoundError(
                f'{Path(root) / name}: missing, the data set is not in {root}; {remedy}'
                'point to it with `--cfg-options data_root=FOLDER`'
            )


def move_data(cfg: Config, new: str, path: str | Path) -> None:
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


def dataset_classes(cfg: Config) -> tuple[str, ...] | None:
    """Return the classes that the config itself gives for its test data, None where it gives none."""
    for dataset in iterate_datasets(cfg, ('test_dataloader',)):
        classes = (dataset.get('metainfo') or {}).get('classes')
        return None if isinstance(classes, str) else classes  # the name of a file
    return None
