"""What the command lines in ``tools/`` share."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config, DictAction

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
        text = ' '.join(str(error).split()) or type(error).__name__
        if not isinstance(error, ValueError | OSError | FloatingPointError):
            text = f'{type(error).__name__}: {text} (set {TRACEBACK_VARIABLE}=1 for the traceback)'
        sys.exit(f'error: {text}')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that MMDetection's own train and test scripts share."""
    parser.add_argument('--work-dir', help='folder of logs, checkpoints and pictures')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, key=value; data_root=FOLDER moves the whole data set',
    )
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
