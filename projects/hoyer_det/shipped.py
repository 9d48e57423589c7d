"""The configs that come with the package: from the checkout, or from an installed wheel."""

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# A wheel has a copy where OpenMMLab's packages keep theirs (setup.py); a checkout has the folder itself.
_FOLDERS = (_PACKAGE / '.mim' / 'configs', _PACKAGE.parents[1] / 'configs')


def config_names() -> list[str]:
    """Return the names of the shipped configs, such as ``'hoyer_ssd_voc'`` and ``'swap/fcos_r50_coco'``."""
    folder = _folder()
    names = [path.relative_to(folder).with_suffix('').as_posix() for path in folder.rglob('*.py')]
    return sorted(name for name in names if not name.startswith('_') and '/_' not in name)


def config_path(name: str) -> str:
    """Return the path of a shipped config.

    In a config of one's own, which may lie in any folder, this is how to build on it::

        _base_ = __import__('hoyer_det').config_path('hoyer_ssd_voc')

    Args:
        name: Path of the file below ``configs/``, with or without ``configs/`` and ``.py``. The parts
            under ``_base_/`` have names, too.

    Raises:
        FileNotFoundError: If there is none of that name; names the nearest ones.

    Example:
        >>> import hoyer_det
        >>> hoyer_det.config_path('swap/fcos_r50_coco')
        '.../configs/swap/fcos_r50_coco.py'
    """
    short = str(name).removeprefix('configs/').removesuffix('.py')
    folder = _folder()
    file = folder / f'{short}.py'
    if file.is_file() and file.resolve().is_relative_to(folder.resolve()):
        return str(file)
    names = config_names()
    # Of the end alone, too: the folder may have been left out.
    near = [known for known in names if known.split('/')[-1] == short.split('/')[-1]]
    near = near or difflib.get_close_matches(short, names, 3)
    meant = f'the nearest are {", ".join(near)}' if near else 'see the folder configs/'
    raise FileNotFoundError(
        f'{name}: no such config file, and none of this name is shipped; {meant}'
    )


def _folder() -> Path:
    for folder in _FOLDERS:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f'{_FOLDERS[0]}: the shipped configs are missing; install hoyer_det again, as a wheel or '
        'with `pip install -e` from its repository'
    )
