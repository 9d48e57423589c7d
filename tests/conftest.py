"""Miniature data sets in the layouts that the suite reads."""

import functools
import gc
import importlib.util
import itertools
import logging
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from hoyer_det.kernels import build
from mmengine.config import config as config_module
from mmengine.config import utils as config_utils
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.utils import package_utils
from warm import Warm, spare_yapf

REPOSITORY = Path(__file__).parents[1]
CONFIGS = REPOSITORY / 'configs'

# Tiny tensors: a second thread costs more than it does.
torch.set_num_threads(1)
# For each `mmdet::` base of a config MMEngine reads MMDetection's 102 metafiles, and imports
# `pkg_resources`, again.
config_utils.load = functools.cache(config_utils.load)
config_module.is_installed = package_utils.is_installed = functools.cache(
    package_utils.is_installed
)
spare_yapf()
_scopes = itertools.count()


def pytest_collection_finish() -> None:
    """Spare the garbage collections of the tests, which MMEngine's data sets ask for, what is imported."""
    gc.freeze()


def load_script(path: str) -> ModuleType:
    """Import a script by its path in the repository."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def voc_object(
    name: str,
    xmin: object = 11,
    ymin: object = 21,
    xmax: object = 60,
    ymax: object = 70,
    difficult: bool = False,
) -> str:
    """Return one object of a Pascal VOC annotation."""
    box = f'<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>'
    return (
        f'<object><name>{name}</name><difficult>{int(difficult)}</difficult>'
        f'<bndbox>{box}</bndbox></object>'
    )


def write_voc_image(
    root: Path,
    name: str,
    objects: Sequence[str],
    size: tuple[int, int] | None = (96, 80),
    suffix: str = '.jpg',
    seed: int = 0,
) -> None:
    """Write one noisy image of 96 x 80 pixels and its annotation, which says ``size``."""
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 255, (80, 96, 3), np.uint8)
    assert cv2.imwrite(str(root / 'JPEGImages' / f'{name}{suffix}'), image)
    shape = ''
    if size is not None:
        shape = f'<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>'
    xml = f'<annotation>{shape}{"".join(objects)}</annotation>'
    (root / 'Annotations' / f'{name}.xml').write_text(xml)


def write_split(root: Path, split: str, names: Sequence[str]) -> None:
    """Write one list of images."""
    folder = root / 'ImageSets' / 'Main'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{split}.txt').write_text(''.join(f'{name}\n' for name in names))


def write_voc_folder(root: Path) -> Path:
    """Write a folder in VOC layout: classes cell, dot and ring, four images to train and two to test."""
    for index in range(6):
        objects = [voc_object('cell'), voc_object('dot' if index % 2 else 'ring', 30, 5, 90, 50)]
        write_voc_image(root, f'image{index}', objects, seed=index)
    write_split(root, 'trainval', [f'image{index}' for index in range(4)])
    write_split(root, 'test', ['image4', 'image5'])
    return root


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    """Such a folder."""
    return write_voc_folder(tmp_path / 'voc')


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Messages of the logger that a run would write to its log file."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    monkeypatch.setattr(MMLogger.get_current_instance(), 'handlers', [Keep()])
    return messages


@pytest.fixture(scope='session')
def warm() -> Iterator[Warm]:
    """Command lines in processes forked from one warm interpreter."""
    interpreter = Warm()
    yield interpreter
    interpreter.close()


@pytest.fixture
def run_tool(warm: Warm) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command from the root of the repository, as the README does."""

    def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        (ended,) = warm.run([tool, *arguments], REPOSITORY, timeout=300)
        return subprocess.CompletedProcess([tool], ended.code, ended.out, ended.err)

    return run


def _begin_scope() -> None:
    """A Runner of an earlier test leaves its registry scope behind; begin with MMDetection's."""
    DefaultScope.get_instance(f'test-{next(_scopes)}', scope_name='mmdet')


# Of a module as well, whose fixtures come before those of its tests.
mmdet_scope_of_module = pytest.fixture(_begin_scope, scope='module', autouse=True)
mmdet_scope = pytest.fixture(_begin_scope, autouse=True)


@pytest.fixture
def needs_kernels() -> None:
    """The kernels must have been compiled for the CPU."""
    if build.library() is None:
        pytest.skip('no C compiler')
