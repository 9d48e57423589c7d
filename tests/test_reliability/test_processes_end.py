"""Several processes on a CPU: they train, evaluate each image once, and end together."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CONFIGS, REPOSITORY, voc_object, write_split, write_voc_image
from hoyer_det.engine.checkpoint import newest_good_checkpoint
from mmengine.config import Config
from warm import Ended, Warm

TINY = """
_base_ = '{configs}/hoyer_ssd_vocformat.py'
model = dict(
    backbone=dict(width=0.0625),
    neck=dict(in_channels=(32, 64), out_channels=(32, 64, 32, 32)),
    bbox_head=dict(in_channels=(32, 64, 32, 32)),
    test_cfg=dict(max_per_img=20),
)
data_root = '{data}'
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
default_hooks = dict(logger=dict(interval=1), visualization=dict(num_images=0))
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
"""


@pytest.fixture
def config(tmp_path: Path, voc_folder: Path) -> Path:
    """Four images to train on, three to evaluate: an odd number for two processes."""
    write_voc_image(voc_folder, 'image6', [voc_object('cell')], seed=6)
    write_split(voc_folder, 'test', ['image4', 'image5', 'image6'])
    path = tmp_path / 'tiny.py'
    path.write_text(TINY.format(configs=CONFIGS, data=voc_folder, epochs=2))
    return path


def train(warm: Warm, config: Path, *more: object, **job: object) -> list[Ended]:
    command = ['train', config, '--work-dir', 'work', '--launcher', 'pytorch', *more]
    return warm.run(command, config.parent, processes=2, **job)


def own_lines(ended: list[Ended]) -> list[str]:
    """Return the one line of each process, none of which hung or showed a traceback."""
    lines = []
    for each in ended:
        assert each.code not in (None, 0), each
        assert 'Traceback' not in each.err
        lines += [line for line in each.err.splitlines() if line.startswith('process ')]
    return lines


def test_training_on_a_cpu(warm: Warm, config: Path) -> None:
    both = train(warm, config)
    assert [each.code for each in both] == [0, 0], both
    assert (config.parent / 'work' / 'epoch_2.pth').is_file()
    one = warm.run(['test', config, 'work/epoch_2.pth', '--work-dir', 'one'], config.parent)
    flags = ['--launcher', 'pytorch', '--work-dir', 'two']
    two = warm.run(['test', config, 'work/epoch_2.pth', *flags], config.parent, processes=2)
    assert [each.code for each in (*one, *two)] == [0, 0, 0], (one, two)
    metrics = [
        json.loads(next((config.parent / folder).glob('*/[0-9]*.json')).read_text())
        for folder in ('one', 'two')
    ]
    for part in metrics:
        part.pop('time'), part.pop('data_time')
    assert metrics[0] == metrics[1]  # as an image that is counted twice would change


def test_bad_image_of_one_process(warm: Warm, config: Path, voc_folder: Path) -> None:
    (voc_folder / 'JPEGImages' / 'image1.jpg').write_bytes(b'no image')
    lines = own_lines(train(warm, config))
    (own,) = [line for line in lines if 'image1.jpg' in line]
    assert own.startswith('process ') and ' of 2: error: ' in own
    assert all(line == own or 'another process has ended' in line for line in lines)


def test_loss_of_one_process_is_nan(warm: Warm, config: Path) -> None:
    options = ['optim_wrapper.optimizer.lr=1e30', 'optim_wrapper.clip_grad=None']
    lines = own_lines(train(warm, config, '--cfg-options', *options, 'param_scheduler=[]'))
    assert lines and any('NaN' in line for line in lines)
    assert newest_good_checkpoint(config.parent / 'work')[1] == []


def test_process_that_is_killed(warm: Warm, config: Path) -> None:
    started = str(config.parent / 'work' / 'epoch_1.pth')
    more = ['--cfg-options', 'train_cfg.max_epochs=200']
    ended = train(warm, config, *more, signals=[(1, signal.SIGKILL, started)])
    assert ended[1].code == -signal.SIGKILL
    (line,) = [line for line in ended[0].err.splitlines() if line.startswith('process 0')]
    assert ended[0].code == 1 and 'another process has ended' in line


def test_ctrl_c_names_the_checkpoint_and_the_command(warm: Warm, config: Path) -> None:
    started = str(config.parent / 'work' / 'epoch_1.pth')
    command = ['train', config, '--work-dir', 'work', '--cfg-options', 'train_cfg.max_epochs=200']
    signals = [(0, signal.SIGINT, started)]
    (ended,) = warm.run(command, config.parent, signals=signals)
    assert ended.code == 130
    (line,) = ended.err.strip().splitlines()
    assert 'the newest checkpoint is' in line and 'work/epoch_' in line
    told = line.partition('go on with: hoyer-det ')[2]
    assert told == ' '.join(map(str, [*command, '--resume']))
    more = ['train_cfg.max_epochs=' + str(epochs_done(config.parent / 'work'))]
    (again,) = warm.run([*command[:-1], *more, '--resume'], config.parent)
    assert again.code == 0 and 'resumed epoch' in again.out


def epochs_done(work_dir: Path) -> int:
    # Not from last_checkpoint: the signal may come before the first one is written.
    return int(Path(newest_good_checkpoint(work_dir)[0]).stem.rpartition('_')[2])


@pytest.mark.slow
def test_torchrun_ends_all_processes(config: Path, voc_folder: Path) -> None:
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2']
    command += ['--master_port', '29633', 'tools/train.py', str(config), '--launcher', 'pytorch']
    command += ['--work-dir', str(config.parent / 'work')]
    trained = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert trained.returncode == 0, trained.stderr
    assert Config.fromfile(config.parent / 'work' / 'tiny.py').launcher == 'pytorch'
    (voc_folder / 'JPEGImages' / 'image1.jpg').write_bytes(b'no image')
    failed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert failed.returncode == 1
    assert 'image1.jpg' in failed.stderr and ' of 2: error: ' in failed.stderr
