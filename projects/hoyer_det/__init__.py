"""One-time-step spiking object detection on MMDetection.

Importing the package registers its modules, so a config only needs
``custom_imports = dict(imports=['hoyer_det'], allow_failed_imports=False)``.
"""

from typing import TYPE_CHECKING, Any

from . import compat

compat.apply()  # before anything imports mmdet.models

from . import (  # noqa: E402
    backbones,
    datasets,
    deploy,
    detectors,
    engine,
    evaluation,
    heads,
    necks,
    pretrain,
    registry,
    weights,
)
from .shipped import config_path  # noqa: E402
from .version import __version__  # noqa: E402

if TYPE_CHECKING:
    from .inference import load


def __getattr__(name: str) -> Any:
    """Import what ``load`` needs when it is first asked for."""
    if name == 'load':
        from .inference import load

        return load
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


__all__ = [
    '__version__',
    'backbones',
    'config_path',
    'datasets',
    'deploy',
    'detectors',
    'engine',
    'evaluation',
    'heads',
    'load',
    'necks',
    'pretrain',
    'registry',
    'weights',
]
