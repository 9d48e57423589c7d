"""Kill a training again and again, resume it, and compare all bits: ``python dev/kill_trainings.py``.

The training has random augmentation and input sizes, a repeated data set, two workers and averaged
weights. It runs once to its end, and once with SIGKILLs at random moments, every third in a validation.
"""

import argparse
import gc
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hoyer_det_cli
import torch
from hoyer_det.commands import train  # noqa: F401  so that every run starts warm
from hoyer_det.datasets import generate_shapes
from torch import Tensor

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
ENTRIES = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
CONFIG = """
_base_ = '{configs}/hoyer_ssd_vocformat.py'
data_root = '{data}'
model = dict(
    backbone=dict(width=0.0625),
    neck=dict(in_channels=(32, 64), out_channels=(32, 64, 32, 32)),
    bbox_head=dict(in_channels=(32, 64, 32, 32)),
    data_preprocessor=dict(
        batch_augments=[
            dict(type='BatchSyncRandomResize', random_size_range=(128, 192), interval=2)
        ]
    ),
)
data = _base_.train_dataloader.dataset
data.update(
    data_root=data_root,
    pipeline=[
        *data.pipeline[:2],
        dict(type='PhotoMetricDistortion'),
        dict(type='Expand', ratio_range=(1, 2)),
        *data.pipeline[2:],
    ],
)
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    dataset=dict(_delete_=True, type='RepeatDataset', times=2, dataset=data),
)
{loop}
default_hooks = dict(
    logger=dict(interval=4),
    checkpoint=dict({checkpoint}),
    visualization=dict(num_images=0),
)
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
"""
LOOPS = dict(
    epochs=(
        """
train_cfg = dict(max_epochs={epochs}, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=5),
    dict(type='CosineAnnealingLR', T_max={epochs}, by_epoch=True, convert_to_iter_based=True),
]
""",
        'interval=1',
    ),
    iterations=(
        """
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=8 * {epochs}, val_interval=10
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=8 * {epochs}, by_epoch=False),
]
train_dataloader['sampler'] = dict(type='InfiniteSampler', shuffle=True)
log_processor = dict(by_epoch=False)
""",
        'interval=5, by_epoch=False',
    ),
)


def run(arguments: list[str], log: Path) -> int:
    """Start ``hoyer-det`` in a forked, warm process of its own group; return its number."""
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        os.setpgid(0, 0)
        with log.open('ab') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = ['hoyer-det', *arguments]
        hoyer_det_cli.main()
        code = 0
    except SystemExit as end:
        print(end.code)
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(number: int, until: Callable[[], bool]) -> int | None:
    """Wait for a process to end, and kill it when ``until`` holds; return its exit code, None if killed."""
    while True:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if until():
            os.killpg(number, signal.SIGKILL)
            os.waitpid(number, 0)
            return None
        time.sleep(0.005)


def kill_moment(work_dir: Path, kind: str, interval: int, seconds: float) -> Callable[[], bool]:
    """Return when to kill: after a time, or in the next validation."""
    start, note = time.monotonic(), work_dir / 'last_checkpoint'
    before = note.stat().st_mtime_ns if note.is_file() else 0

    def validating() -> bool:
        if not note.is_file() or (work_dir / 'last_validation').exists():
            return False
        step = int(note.read_text().rpartition('_')[2].removesuffix('.pth') or 0)
        return step % interval == 0 and note.stat().st_mtime_ns != before

    return validating if kind == 'validation' else lambda: time.monotonic() - start > seconds


def tensors(content: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield all tensors and numbers of a checkpoint by name."""
    if isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield from tensors(value, f'{name}.{key}')
    else:
        yield name, content


def differences(first: Path, second: Path) -> tuple[list[str], int]:
    """Return the names of what differs in any bit, and how many tensors and numbers there are."""
    a, b = (
        dict(tensors({key: torch.load(path, weights_only=True)[key] for key in ENTRIES}, ''))
        for path in (first, second)
    )
    same = {
        name
        for name in a.keys() & b.keys()
        if (torch.equal(a[name], b[name]) if isinstance(a[name], Tensor) else a[name] == b[name])
    }
    return sorted((a.keys() | b.keys()) - same), len(a)


def main() -> None:
    """Run, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--epochs', type=int, default=6)
    parser.add_argument('--loop', choices=LOOPS, default='epochs')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--folder', type=Path, help='keeps what the runs write (a temporary one)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        report = experiment(args, (args.folder or Path(temporary)).resolve())
    print(report)
    sys.exit(0 if report.endswith('all bits are equal') else 1)


def experiment(args: argparse.Namespace, root: Path) -> str:
    """Run the training whole and killed; return the outcome in a line."""
    data = generate_shapes(root / 'data', num_train=16, num_test=6, image_size=96)
    config, log = root / 'config.py', root / 'log.txt'
    loop, checkpoint = LOOPS[args.loop]
    loop = loop.replace('{epochs}', str(args.epochs))
    config.write_text(CONFIG.format(configs=CONFIGS, data=data, loop=loop, checkpoint=checkpoint))
    gc.freeze()  # what is imported: the collections of the runs pass it over
    torch.set_num_threads(1)  # before the forks, whose pools of threads would be gone

    whole, killed = root / 'whole', root / 'killed'
    start = time.monotonic()
    code = wait(run(['train', str(config), '--work-dir', str(whole)], log), lambda: False)
    seconds = time.monotonic() - start
    if code:
        return f'the training itself ended with {code}: {log.read_text()[-2000:]}'
    choose = random.Random(args.seed)
    done = dict.fromkeys(('time', 'validation'), 0)
    command = ['train', str(config), '--work-dir', str(killed), '--resume']
    for number in range(args.kills):
        kind = 'validation' if number % 3 == 1 else 'time'
        interval = dict(epochs=2, iterations=10)[args.loop]
        moment = kill_moment(killed, kind, interval, choose.uniform(0.05, 0.6) * seconds)
        code = wait(run(command, log), moment)
        if code is None:
            done[kind] += 1
            print(f'kill {number + 1}: {kind}, newest {_newest(killed)}', flush=True)
        elif code:
            return f'a resumed training ended with {code}: {log.read_text()[-2000:]}'
        if _newest(killed) == _newest(whole) and not _validated(killed, whole):
            code = wait(run(command, log), lambda: False)
            if code or not _validated(killed, whole):
                return 'a training killed in its last validation resumed without any'
        if _newest(killed) == _newest(whole) and number + 1 < args.kills:
            different, total = differences(whole / _newest(whole), killed / _newest(killed))
            if different:
                break
            print(f'  complete, {total} tensors and numbers equal; from the beginning', flush=True)
            killed = root / f'killed{number}'
            command[3] = str(killed)
    code = wait(run(command, log), lambda: False)
    different, total = differences(whole / _newest(whole), killed / _newest(killed))
    kills = f'{sum(done.values())} SIGKILLs ({done["validation"]} in a validation)'
    if code or different or not _validated(killed, whole):
        return f'{kills}: exit code {code}, {len(different)} of {total} differ {different[:5]}'
    return f'{kills}, {total} tensors and numbers: all bits are equal'


def _newest(work_dir: Path) -> str:
    note = work_dir / 'last_checkpoint'
    return Path(note.read_text()).name if note.is_file() else ''


def _validated(work_dir: Path, whole: Path) -> bool:
    notes = [folder / 'last_validation' for folder in (work_dir, whole)]
    return notes[0].is_file() and notes[0].read_text() == notes[1].read_text()


if __name__ == '__main__':
    main()
