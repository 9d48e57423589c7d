"""What is said of an error in one line, and which part of a config it comes from."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config

_UNDECODED = 'failed to load image: '


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
        raise ValueError(f'{cfg.filename}: {key}: {foreseen(error) or named(error)}') from error


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
        lines = lines[-1:]  # of a worker process of a data loader
    return ' '.join(' '.join(lines).split()) or type(error).__name__
