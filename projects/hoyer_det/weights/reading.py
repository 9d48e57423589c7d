"""Reads the weights of a checkpoint file without running anything that the file contains."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

_WRAPPERS = ('state_dict', 'net')
_PREFIX = 'module.'


class Checkpoint(NamedTuple):
    """Content of a checkpoint file.

    Attributes:
        weights: Tensors by name, without wrapper and without the prefix ``module.``.
        others: Names of the file's entries that hold no weights of the network.
        meta: The entry ``meta``, empty where there is none.
    """

    weights: dict[str, Tensor]
    others: list[str]
    meta: dict[str, Any]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file of ``torch.save``: weights alone, or under ``state_dict`` or ``net``.

    Loading is weights-only, so no code of the file runs.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or holds more than tensors and plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint file')
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:
        # The error itself is long and recommends to turn the protection off.
        raise ValueError(
            f'{path}: cannot be read as a checkpoint ({type(error).__name__}); it must be a file of '
            'torch.save that holds weights and plain data alone'
        ) from error
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
    return Checkpoint(dict(weights), others, meta if isinstance(meta, dict) else {})
