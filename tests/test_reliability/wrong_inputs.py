"""Wrong inputs to the command lines: what a case is, the folder it runs in, and how its end is judged."""

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from coco_folder import write_coco_folder
from conftest import CONFIGS, write_voc_folder
from warm import Ended, Warm

GOOD = 'one line that names place and reason'
SILENT = 'accepted without a word'
TRACEBACK = 'traceback'
HANG = 'no end'
LINES = 'not one line'
NAMELESS = 'a line without place or reason'
LEFT = 'files left behind'
OUTCOMES = (GOOD, SILENT, TRACEBACK, HANG, LINES, NAMELESS, LEFT)

CONFIG = """
_base_ = {base!r}
model = dict(
    backbone=dict(width=0.0625),
    neck=dict(in_channels=(32, 64), out_channels=(32, 64, 32, 32)),
    bbox_head=dict(in_channels=(32, 64, 32, 32)),
    test_cfg=dict(max_per_img=5),
)
data_root = {data!r}
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
test_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), visualization=dict(num_images=0))
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
"""
# What Python and libraries print on stderr beside an error: warnings with their line of code, bars.
_BESIDE = re.compile(r'\S+:\d+: \w*Warning: .*|\s+\S.*|.*\d+%\|.*|.*\dimg/s.*|usage: .*|\s*')


@dataclass(frozen=True)
class Case:
    """One wrong input.

    Attributes:
        name: What is wrong.
        command: Arguments of ``hoyer-det``, run in a folder as :func:`write_sound_folder` makes it.
        where: The line of error must have this: a file, a key or a flag.
        what: And this: the reason.
        spoil: Makes something in the folder wrong before the command runs.
        starts: Whether the fault shows only after the work has begun, which may leave its log and whole
            results.
        slow: Whether it takes long.
        job: Further arguments of ``Warm.run``.
    """

    name: str
    command: str
    where: str
    what: str
    spoil: Callable[[Path], object] = lambda folder: None
    starts: bool = False
    slow: bool = False
    job: dict[str, Any] = field(default_factory=dict)


def write_sound_folder(root: Path, warm: Warm) -> None:
    """Write data in both layouts, a config for each, and a training of two epochs in ``work``."""
    write_voc_folder(root / 'voc')
    write_coco_folder(root / 'coco')
    for name in ('voc', 'coco'):
        base = str(CONFIGS / f'hoyer_ssd_{name}format.py')
        (root / f'{name}.py').write_text(CONFIG.format(base=base, data=name))
    (trained,) = warm.run(['train', 'voc.py', '--work-dir', 'work'], root)
    assert trained.code == 0, trained
    for path in (root / 'work').iterdir():  # what no case needs and each would copy
        if path.is_dir():
            shutil.rmtree(path)
    (root / 'work' / 'epoch_1.pth').unlink()


def run(case: Case, sound: Path, folder: Path, warm: Warm) -> tuple[str, Ended]:
    """Run a case in a copy of the sound folder.

    Returns:
        One of ``OUTCOMES``, and how the process ended.
    """
    shutil.copytree(sound, folder, symlinks=True)
    case.spoil(folder)
    before = _files(folder)
    (ended,) = warm.run(shlex.split(case.command), folder, **{'timeout': 300, **case.job})
    return _judge(case, ended, folder, before), ended


def _judge(case: Case, ended: Ended, folder: Path, before: dict[str, int]) -> str:
    if ended.code is None:
        return HANG
    if ended.code == 0:
        return SILENT
    if 'Traceback' in ended.out + ended.err:
        return TRACEBACK
    lines = [line for line in ended.err.splitlines() if not _BESIDE.fullmatch(line)]
    if len(lines) != 1 or 'error: ' not in lines[0]:
        return LINES
    if case.where not in lines[0] or case.what not in lines[0]:
        return NAMELESS
    after = _files(folder)
    if not case.starts and after != before or case.starts and _half_written(folder):
        return LEFT
    return GOOD


def _files(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.lstat().st_mtime_ns for p in folder.rglob('*')}


def _half_written(folder: Path) -> bool:
    """Tell whether a temporary file or an unreadable checkpoint is in a folder."""
    if any(re.search(r'\.(part|tmp)$|/tmp[^/]*$', str(path)) for path in folder.rglob('*')):
        return True
    for path in folder.glob('work*/*.pth'):
        torch.load(path, weights_only=True)
    return False
