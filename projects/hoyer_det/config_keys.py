"""Refuses keys of a config, and options of a command line, that nothing would read."""

import difflib
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

# What MMEngine and MMDetection read from a config, whether it is in it or not.
_READ = {
    *inspect.signature(Runner.__init__).parameters,
    *('activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'sync_bn'),
    *('tta_model', 'tta_pipeline'),
} - {'self', 'cfg'}
# Variables of a config that load_config and complete_config give an effect: files and folders of the data.
DATA_PATHS = {'data_root', 'train_ann', 'train_images', 'val_ann', 'val_images'}


def check_keys(cfg: Config, path: str | Path) -> None:
    """Refuse a misspelt key of a config, such as ``modle``.

    A config may have variables of its own, so only a slip of one letter, or letters exchanged, in the
    name of something that is read counts as misspelt.

    Args:
        cfg: Config.
        path: Its file, for the message.

    Raises:
        ValueError: Names the key and what was probably meant.
    """
    for key in cfg:
        meant = next((name for name in sorted(_READ) if _is_slip(key, name)), None)
        if key not in _READ and meant is not None:
            raise ValueError(
                f'{path}: nothing reads {key}; is {meant} meant? Rename it (a variable of your own: '
                'less alike)'
            )


def check_options(cfg: Config, options: Iterable[str], path: str | Path) -> None:
    """Refuse options that would change nothing.

    Args:
        cfg: Config, before the options are merged.
        options: Dotted keys.
        path: File of the config, for the message.

    Raises:
        ValueError: If an option begins with a key that nothing reads or a variable that was used up
            while the file was read, or if a part of it is nearly, but not quite, a key that is there.
    """
    for option in options:
        first = option.split('.')[0]
        if first == 'data_root' or (first in DATA_PATHS and first in cfg):
            continue
        if first in _READ:
            _check_nested(cfg, option)
        elif first in cfg:
            raise ValueError(
                f'option {option}: {first} is a variable of {path} and has no effect after it was '
                f'read; set what was made from it instead{_made_from(cfg, first)}'
            )
        else:
            known = {*_READ, *(name for name in DATA_PATHS if name in cfg)}
            raise ValueError(
                f'option {option}: nothing reads {first!r} of {path}; {_nearest(first, known)}'
            )


def _check_nested(cfg: Config, option: str) -> None:
    node: Any = cfg._cfg_dict
    for part in option.split('.'):
        if isinstance(node, list | tuple):
            if not part.isdigit() or int(part) >= len(node):
                raise ValueError(
                    f'option {option}: {part!r} is no entry of a list with entries 0 to {len(node) - 1}'
                )
            node = node[int(part)]
        elif isinstance(node, dict):
            if part not in node and node is not cfg._cfg_dict:
                meant = next((key for key in node if _is_slip(part, str(key))), None)
                if meant is not None:
                    raise ValueError(f'option {option}: there is no {part!r}; is {meant} meant?')
            node = node.get(part)


def _made_from(cfg: Config, variable: str) -> str:
    """Name the keys that hold the value of a variable; a number may be in some by chance."""
    uses = list(_uses(cfg._cfg_dict, cfg[variable]))
    named = [use for use in uses if use.split('.')[-1] == variable]
    others = [use for use in uses if use not in named]
    if len(others) > 4:
        others[4:] = ['...']
    first, second = ', '.join(named), ', '.join(others)
    if first and second:
        return f': {first}; other keys of the same value: {second}'
    return f': {first or second}' if uses else ''


def _uses(node: Any, value: Any, path: str = '') -> Iterator[str]:
    """Yield the dotted keys below the known ones that hold a value."""
    if isinstance(node, dict):
        items: Iterable[tuple[Any, Any]] = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    else:
        return
    for key, item in items:
        if not path and key not in _READ:
            continue
        name = f'{path}.{key}' if path else str(key)
        if type(item) is type(value) and item == value and value is not None:
            yield name
        else:
            yield from _uses(item, value, name)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), 1)
    return f'is {close[0]} meant?' if close else 'check the spelling'


def _is_slip(word: str, meant: str) -> bool:
    """Tell whether one letter is missing, too many or another, or letters are exchanged."""
    if word == meant or word[-1:].isdigit():  # model2 may be another model
        return False
    if sorted(word) == sorted(meant):
        return True
    longest = max(len(word), len(meant))
    if longest < 4 or abs(len(word) - len(meant)) > 1:
        return False
    pairs = list(zip(word, meant, strict=False))
    start = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    end = next(
        (i for i, (a, b) in enumerate(zip(word[::-1], meant[::-1], strict=False)) if a != b),
        len(pairs),
    )
    return start + end >= longest - 1
