"""Reads the weights of a checkpoint file without running anything that the file contains."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

_WRAPPERS = ('state_dict', 'net')
_PREFIX = 'module.'
# Initialisations that read weights from a file; all others draw them at random.
_FROM_FILE = ('FromANN', 'Pretrained', 'PretrainedInit')


class Checkpoint(NamedTuple):
    """Content of a checkpoint file.

    Attributes:
        weights: Tensors by name, without wrapper and without the prefix ``module.``.
        others: Names of the file's entries that hold no weights of the network.
        meta: The entry ``meta``, empty where there is none.
        path: The file, or its address, for messages.
    """

    weights: dict[str, Tensor]
    others: list[str]
    meta: dict[str, Any]
    path: str

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """``classes``, a tuple that is empty where none are named, and ``palette``, for drawing."""
        stored = self.meta.get('dataset_meta') or self.meta  # where MMDetection 2 wrote CLASSES
        found = {key.lower(): value for key, value in stored.items()}
        classes = found.get('classes') or ()
        return dict(
            classes=(classes,) if isinstance(classes, str) else tuple(classes),
            palette=found.get('palette') or 'random',
        )


def read_content(path: str | Path) -> Any:
    """Read a file of ``torch.save`` weights-only, so no code of the file runs.

    Args:
        path: The file, or an address: ``torchvision://`` and a name, ``https://``, or another that
            mmengine knows.

    Raises:
        FileNotFoundError: If there is no such file.
        ConnectionError: If the address cannot be reached.
        ValueError: If nothing has that name, or it cannot be read, or holds more than tensors and plain
            data.
    """
    scheme, _, name = str(path).rpartition('://')
    if not scheme and not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint file')
    try:
        if scheme:
            return CheckpointLoader.load_checkpoint(str(path), map_location='cpu', logger='silent')
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        if isinstance(error, KeyError) and error.args == (name,):
            raise ValueError(f'{path}: no weights of this name') from error
        if scheme and isinstance(error, OSError):  # URLError and HTTPError among them
            raise ConnectionError(f'{path}: cannot be downloaded ({error})') from error
        # The error itself is long and recommends to turn the protection off.
        raise ValueError(
            f'{path}: cannot be read as a checkpoint ({type(error).__name__}); it must be a whole file '
            'of torch.save that holds weights and plain data alone'
        ) from error


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read weights that stand alone, or under ``state_dict`` or ``net``.

    Args:
        path: File or address, as for :func:`read_content`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or holds more than tensors and plain data.
    """
    content = read_content(path)
    if not isinstance(content, dict):
        raise ValueError(f'{path}: holds a {type(content).__name__}, not a checkpoint')
    others: list[str] = []
    weights = content
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            weights = content[wrapper]
            others = [str(key) for key in content if key != wrapper]
            break
    wrong = [str(key) for key, value in weights.items() if not isinstance(value, Tensor)]
    if wrong or not weights:
        raise ValueError(
            f'{path}: no weights found, neither at the top nor under {" or ".join(_WRAPPERS)}'
            + (f' ({wrong[0]} is no tensor)' if wrong else '')
        )
    if all(key.startswith(_PREFIX) for key in weights):
        weights = {key[len(_PREFIX) :]: value for key, value in weights.items()}
    meta = content.get('meta') if weights is not content else None
    return Checkpoint(dict(weights), others, meta if isinstance(meta, dict) else {}, str(path))


def initialiser(config: Mapping[str, Any]) -> str:
    """Return the name of an ``init_cfg``'s type, which may be a word, a dotted path or the class."""
    kind = config.get('type')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def reads_file(config: Mapping[str, Any]) -> bool:
    """Tell whether an ``init_cfg`` reads weights from a file."""
    return initialiser(config) in _FROM_FILE


def config_parts(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every dictionary in a part of a config, itself included."""
    if isinstance(node, dict):
        yield node
        node = node.values()
    elif not isinstance(node, list | tuple):
        return
    for item in node:
        yield from config_parts(item)


def drop_starts(model: Any) -> None:
    """Take away what a model's config would load, where all its weights come from elsewhere."""
    for part in config_parts(model):
        start = part.get('init_cfg')
        if isinstance(start, list | tuple):
            part['init_cfg'] = [item for item in start if not reads_file(item)]
        elif isinstance(start, dict) and reads_file(start):
            del part['init_cfg']


def initialisations(model: nn.Module) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
    """Yield every config under ``init_cfg`` of a model's modules, behind its module."""
    for module in model.modules():
        configs = getattr(module, 'init_cfg', None) or []
        for config in [configs] if isinstance(configs, dict) else configs:
            yield module, config


def pretrained_modules(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield what ``init_cfg=dict(type='Pretrained', ...)`` of a model fills.

    Args:
        model: Model of mmengine's modules, initialised or not.

    Yields:
        The module, the checkpoint's file or address, and the prefix of its names there with the dot.
    """
    for module, config in initialisations(model):
        if reads_file(config) and initialiser(config) != 'FromANN':
            prefix = config.get('prefix') or ''
            yield module, str(config['checkpoint']), prefix and prefix.rstrip('.') + '.'
