"""Arguments that several commands share."""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

from ..config_keys import DATA_PATHS
from ..twins import TWINS

# What starts the processes of a launcher, and a variable that it sets.
_STARTERS = {
    'pytorch': ('torchrun', 'RANK'),
    'slurm': ('srun', 'SLURM_PROCID'),
    'mpi': ('mpirun', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


class _OptionAction(DictAction):
    """Reads ``key=value``; folders and files of the data are taken as they stand, with spaces and commas."""

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
        paths = [item for item in values if item.split('=')[0] in DATA_PATHS]
        others = [item for item in values if item not in paths]
        try:
            super().__call__(parser, namespace, others, option_string)
        except AssertionError as error:  # imbalanced brackets
            parser.error(f'{option_string}: {error}')
        getattr(namespace, self.dest).update(item.split('=', maxsplit=1) for item in paths)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the flag that overrides settings of the config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_OptionAction,
        help='override settings of the config, key=value; data_root=FOLDER moves the whole data set',
    )


def add_twin_option(parser: argparse.ArgumentParser) -> None:
    """Add the flag that chooses a twin of the config."""
    parser.add_argument(
        '--twin',
        choices=TWINS,
        help='the same experiment with ReLU (relu), with spikes at a fixed level (level), at a fixed level '
        'without the regularizer (onebit), or with leaky neurons over four time steps (lif)',
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that MMDetection's own train and test scripts share."""
    parser.add_argument(
        '--work-dir', help='folder of logs, checkpoints and pictures (work_dirs/<config>[_<twin>])'
    )
    add_twin_option(parser)
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
    """Set launcher and work folder: the flag, else the config's, else ``work_dirs/<config name>``.

    A twin's name is that of its config with the kind behind: ``hoyer_ssd_voc_relu``.

    Raises:
        ValueError: If there is a file in the place of the folder or of one above it, or the launcher has
            not started this process.
    """
    if arguments.launcher != 'none':
        program, variable = _STARTERS[arguments.launcher]
        if variable not in os.environ:
            raise ValueError(
                f'--launcher {arguments.launcher}: {variable} is not set; start the command with '
                f'{program}, or leave --launcher out'
            )
    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
    cfg.launcher = arguments.launcher
    if arguments.work_dir is not None:
        cfg.work_dir = arguments.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(cfg.filename).stem)
    check_folder('--work-dir', cfg.work_dir)


def check_folder(flag: str, folder: str | Path) -> None:
    """Make sure that a folder is there or can be made, and takes files.

    Args:
        flag: Flag that names it, for the message.
        folder: The folder.

    Raises:
        ValueError: If there is a file or a link to nothing in its place or that of one above it, or
            nothing can be written there.
    """
    for path in (Path(folder), *Path(folder).parents):
        if os.path.lexists(path) and not path.is_dir():
            kind = 'a file' if path.exists() else 'a link to nothing'
            raise ValueError(f'{flag} {folder}: {path} is {kind}, a folder is needed')
    nearest = next(
        path for path in (Path(folder), *Path(folder).absolute().parents) if path.is_dir()
    )
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise ValueError(
            f'{flag} {folder}: nothing can be written in {nearest} ({error.strerror}); choose another'
        ) from error


def check_file(flag: str, file: str | Path) -> None:
    """Make sure that a file can be written.

    Args:
        flag: Flag that names it, for the message.
        file: The file; what is there and neither file nor folder, such as ``/dev/stdout``, is taken.

    Raises:
        ValueError: If there is a folder in its place, or its own folder does not do: see
            :func:`check_folder`.
    """
    path = Path(file)
    if path.is_dir():
        raise ValueError(f'{flag} {file}: is a folder, a file is needed')
    if path.is_file() or not path.exists():
        check_folder(f'{flag} {file}: folder', path.parent)
