"""What is said of an error in one line, and which part of a config it comes from."""

import difflib
import inspect
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mmdet import registry
from mmengine.config import Config
from mmengine.registry import Registry

_UNDECODED = 'failed to load image: '
_UNKNOWN_TYPE = re.compile(r'(\w+) is not in the \w+::([\w ]+) registry')
_UNKNOWN_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")


@contextmanager
def naming(cfg: Config, key: str) -> Iterator[None]:
    """Say in an error which part of a config it comes from, unless it names a file of its own.

    Args:
        cfg: The config.
        key: Dotted key of the part.

    Raises:
        ValueError: In place of the error.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if os.path.exists(str(error).partition(': ')[0]):
            raise
        text = foreseen(error) or misspelt(error) or named(error)
        raise ValueError(f'{cfg.filename}: {key}: {text}') from error


def foreseen(error: Exception) -> str | None:
    """Return the text of an error that says by itself what is wrong, None of any other."""
    text = _text(error)
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return text
    if isinstance(error, AssertionError) and _UNDECODED in text:  # by mmcv's LoadImageFromFile
        return (
            f'{text.partition(_UNDECODED)[2]}: cannot be decoded as an image; `hoyer-det check-data` lists '
            'all such files'
        )
    if isinstance(error, RuntimeError) and text.startswith('DataLoader worker (pid'):
        return (
            f'{text.rstrip(". ")}; if the memory ran out, lower num_workers or batch_size of '
            'train_dataloader and val_dataloader'
        )
    return None


def misspelt(error: Exception) -> str | None:
    """Return a line with the nearest name for a type or an argument that MMEngine does not know.

    None of another error, and where no name is near.
    """
    text = _text(error)
    # With the parents of MMDetection's, which are MMEngine's and are imported there.
    registries = [r for r in vars(registry).values() if isinstance(r, Registry)]
    if isinstance(error, KeyError) and (found := _UNKNOWN_TYPE.match(text)):
        name, place = found.groups()
        known = {known for r in registries if r.name == place for known in r.module_dict}
        what = f'there is no {place} of the type {name!r}'
    elif isinstance(error, TypeError) and (found := _UNKNOWN_ARGUMENT.search(text)):
        kind, name = found.groups()
        classes = [cls for cls in (r.get(kind) for r in registries) if cls is not None]
        known = {known for cls in classes for known in inspect.signature(cls).parameters}
        what = f'{kind} has no argument {name!r}'
    else:
        return None
    near = [each for each in known if each.lower() == name.lower()]
    near += difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f'{what}; is {near[0]!r} meant?' if near else None


def named(error: Exception) -> str:
    """Return the text of an error behind the name of its class."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__name__}'
    if not str(error) and error.__traceback__ is not None:  # such as an assertion without a text
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f'{name} in {place.filename}, line {place.lineno}: {place.line}'
    return f'{name}: {_text(error)}'


def _text(error: Exception) -> str:
    lines = str(error.args[0] if isinstance(error, KeyError) and error.args else error).splitlines()
    if any(line.startswith('Original Traceback') for line in lines):
        # Of a worker process of a data loader.
        lines = [lines[-1].removeprefix(f'{type(error).__name__}: ')]
    return ' '.join(' '.join(lines).split()) or type(error).__name__
