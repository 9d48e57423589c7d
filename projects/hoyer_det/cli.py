"""What the command lines in ``tools/`` share."""

import argparse
import ctypes
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.visualization import Visualizer

TRACEBACK_VARIABLE = 'HOYER_DET_TRACEBACK'


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn an exception into one line on stderr and exit code 1.

    Set the environment variable ``HOYER_DET_TRACEBACK=1`` to see the traceback instead.

    Args:
        *kinds: Exceptions to turn; every ``Exception`` by default.
    """
    kinds = kinds or (Exception,)
    try:
        yield
    except kinds as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        lines = str(error).strip().splitlines()
        if any(line.startswith('Original Traceback') for line in lines):
            lines = lines[-1:]  # of a worker process of a data loader
        text = ' '.join(' '.join(lines).split()) or type(error).__name__
        if not isinstance(error, ValueError | OSError | FloatingPointError):
            text = f'{type(error).__name__}: {text} (set {TRACEBACK_VARIABLE}=1 for the traceback)'
        sys.exit(f'error: {text}')


def keep_freed_memory() -> None:
    """Let freed tensors stay with the process, where it computes on a CPU.

    The C library of Linux hands large blocks back to the system and has every page of the next tensor
    filled with zeros again, at each training step. Nothing happens where there is a GPU or another C
    library, or where variables of the environment (``MALLOC_...``) say already how memory is kept.
    """
    chosen = any(name.startswith('MALLOC_') for name in os.environ)
    if chosen or torch.cuda.is_available() or not sys.platform.startswith('linux'):
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return
    # malloc.h: M_MMAP_MAX = -4, no block is mapped by itself; M_TRIM_THRESHOLD = -1, in bytes.
    mallopt(-4, 0)
    mallopt(-1, 2**31 - 1)


@contextmanager
def nothing_left_behind(folder: str | Path) -> Iterator[None]:
    """Remove what is new in ``folder``, and the folder if it is new itself, when an error passes.

    Args:
        folder: Work folder of a run that is being prepared.
    """
    folder = Path(folder)
    parents = [path for path in (folder, *folder.parents) if not path.exists()]
    before = set(folder.iterdir()) if not parents else set()
    try:
        yield
    except BaseException:
        with suppress(RuntimeError):  # there may be none yet
            Visualizer.get_current_instance().close()  # its threads would go on writing
        if os.environ.get('RANK', '0') == '0':
            for path in set(folder.iterdir()) - before if folder.exists() else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in parents:
                if path.exists():
                    path.rmdir()
        raise


class _OptionAction(DictAction):
    """Reads ``key=value``; a folder is taken as it stands, with spaces and commas."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        for item in values:
            if '=' not in item:
                parser.error(f'{option_string}: expected key=value, got {item!r}')
        super().__call__(parser, namespace, values, option_string)
        options: dict[str, Any] = getattr(namespace, self.dest)
        for key, value in (item.split('=', maxsplit=1) for item in values):
            if key == 'data_root':
                options[key] = value


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the flag that overrides settings of the config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_OptionAction,
        help='override settings of the config, key=value; data_root=FOLDER moves the whole data set',
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that MMDetection's own train and test scripts share."""
    parser.add_argument('--work-dir', help='folder of logs, checkpoints and pictures')
    add_config_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch passes --local-rank, older versions --local_rank.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def set_up_work_dir(cfg: Config, arguments: argparse.Namespace) -> None:
    """Set launcher and work folder: the flag, else the config's, else ``work_dirs/<config name>``."""
    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
    cfg.launcher = arguments.launcher
    if arguments.work_dir is not None:
        cfg.work_dir = arguments.work_dir
    elif cfg.get('work_dir') is None:
        name = os.path.splitext(os.path.basename(arguments.config))[0]
        cfg.work_dir = os.path.join('work_dirs', name)
