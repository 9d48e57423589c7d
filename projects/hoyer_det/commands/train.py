"""``hoyer-det train CONFIG``: train a detector or classifier."""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path

from mmdet.registry import DATASETS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_world_size, is_main_process

from ..config import check_data, load_config
from ..engine.checkpoint import check_resumable, check_starting_weights, newest_good_checkpoint
from ..training.from_objects import OBJECT_EPOCHS, FromObjects
from ..training.from_twin import TWIN_SHARE, FromTwin
from ..training.memory import keep_freed_memory
from ..training.resuming import how_to_go_on, newest, resume_from
from ..training.runner import CommandRunner
from ..training.settings import check_settings
from ..training.stages import FLAGS, refuse_other_stages
from ..weights.zoo import checkpoint_file
from .arguments import add_common_arguments, set_up_work_dir
from .errors import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the flags; they are those of MMDetection's tools/train.py."""
    parser = argparse.ArgumentParser(description='Train a detector or classifier.')
    parser.add_argument('config', help='config file, or the name of a shipped one')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from CHECKPOINT, or from the newest one in the work folder',
    )
    add_common_arguments(parser)
    group = parser.add_argument_group('from the ReLU twin')
    group.add_argument(
        '--from-twin',
        action='store_true',
        help='train the ReLU twin first, convert it, and fine-tune with spikes for the rest of the epochs',
    )
    group.add_argument(
        '--twin-share',
        type=float,
        help=f"the twin's share of the epochs (default: {TWIN_SHARE})",
    )
    group.add_argument(
        '--no-teacher',
        action='store_true',
        help='fine-tune without distillation from the twin',
    )
    group = parser.add_argument_group('from the objects')
    group.add_argument(
        '--from-objects',
        action='store_true',
        help='train the backbone as a classifier of the objects in the training images first',
    )
    group.add_argument(
        '--object-epochs',
        type=int,
        help=f'epochs of the classifier, before those of the detector (default: {OBJECT_EPOCHS})',
    )
    return parser.parse_args()


def build_runner(args: argparse.Namespace) -> CommandRunner:
    """Make a runner from the flags, with all that can go wrong before the first iteration."""
    cfg = build_config(args)
    refuse_other_stages(cfg.work_dir)
    checkpoint = _resumed(args, cfg)
    if checkpoint is not None:
        if checkpoint != 'auto':
            check_resumable(checkpoint)
        resume_from(cfg, newest(cfg.work_dir) if checkpoint == 'auto' else checkpoint)
    return make_runner(cfg)


def _resumed(args: argparse.Namespace, cfg: Config) -> str | None:
    """Return what to go on from: a checkpoint, ``'auto'`` or None; MMEngine's ``resume=True`` counts, too."""
    if args.resume is None and cfg.get('resume'):
        return cfg.get('load_from') or 'auto'
    return args.resume


def build_config(args: argparse.Namespace) -> Config:
    """Load the config that the flags describe, and check its data."""
    cfg = load_config(args.config, args.cfg_options, args.twin)
    set_up_work_dir(cfg, args)
    check_settings(cfg, 'train')
    check_data(cfg, ('train_dataloader', 'val_dataloader'))
    if cfg.get('load_from'):
        cfg.load_from = checkpoint_file(cfg.load_from)
    if args.amp:
        if get_device() == 'cpu':
            raise ValueError('--amp: MMEngine has no mixed precision on a CPU; leave it out')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ValueError(f'{args.config}: --auto-scale-lr needs auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    return cfg


def make_runner(cfg: Config, check: Callable[[CommandRunner], None] | None = None) -> CommandRunner:
    """Make a runner, with all that can go wrong before the first iteration.

    Args:
        cfg: Completed config.
        check: Raises if the runner is not to be trained; what its set-up wrote is then undone.
    """
    check_starting_weights(cfg)
    runner = CommandRunner.from_cfg(cfg)
    with runner.set_up():
        if len(runner.train_loop.dataloader) == 0:
            raise ValueError(_too_few(cfg, len(runner.train_loop.dataloader.dataset)))
        _ = runner.val_loop  # is built when first asked for, and reads the data set
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        if check is not None:
            check(runner)
    return runner


def _check_batch(cfg: Config) -> None:
    """Make sure that the training images fill one batch."""
    loader = cfg.train_dataloader
    number = len(DATASETS.build(loader.dataset))
    each = math.ceil(number / _processes(cfg))
    if loader.get('drop_last') and each < loader.batch_size:
        raise ValueError(_too_few(cfg, number))


def _processes(cfg: Config) -> int:
    """Return the number of processes, also before they know each other."""
    known = get_world_size()
    return known if cfg.get('launcher', 'none') == 'none' else int(os.getenv('WORLD_SIZE', known))


def _too_few(cfg: Config, number: int) -> str:
    """Return the message for a training set that does not fill one batch."""
    size, processes = cfg.train_dataloader.batch_size, _processes(cfg)
    each = f' in each of {processes} processes' if processes > 1 else ''
    what = f'train_dataloader.batch_size={size}{each}'
    if cfg.train_dataloader.dataset.get('type') == 'ObjectCropsDataset':
        return (
            f'{number} objects of the training images do not fill one batch of {what} (with --from-objects '
            'four times that of the detector); make it smaller'
        )
    return f'{number} training images do not fill one batch of {what}; make it smaller'


def stages_flag(args: argparse.Namespace) -> str | None:
    """Return the flag that asks for a training in stages, None for a plain one."""
    given = {'--from-twin': args.from_twin, '--from-objects': args.from_objects}
    return next((flag for flag in FLAGS if given[flag]), None)


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse flags that do not go together."""
    for flag, given, owner in (
        ('--twin-share', args.twin_share is not None, 'from_twin'),
        ('--no-teacher', args.no_teacher, 'from_twin'),
        ('--object-epochs', args.object_epochs is not None, 'from_objects'),
    ):
        if given and not getattr(args, owner):
            name = f'--{owner.replace("_", "-")}'
            raise ValueError(f'{flag}: belongs to {name}; add that, or leave it out')
    if args.from_twin and args.from_objects:
        raise ValueError('--from-twin: does not go with --from-objects; choose one')
    if args.from_twin and args.twin is not None:
        raise ValueError('--twin: does not go with --from-twin, which trains the ReLU twin itself')
    if (flag := stages_flag(args)) and args.resume not in (None, 'auto'):
        raise ValueError(
            f'--resume {args.resume}: with {flag} give --resume alone; each stage finds its newest '
            'checkpoint in the work folder'
        )


def run_stages(args: argparse.Namespace, flag: str) -> None:
    """Train in stages: by way of the ReLU twin, or of the objects."""
    with one_line_errors():
        cfg = build_config(args)
        if cfg.get('val_dataloader') is None:
            raise ValueError(
                f'{cfg.filename}: val_dataloader=None: {flag} evaluates what each stage reached; give it '
                f'data, or leave {flag} out'
            )
        resume = _resumed(args, cfg) is not None
        if flag == '--from-twin':
            share = TWIN_SHARE if args.twin_share is None else args.twin_share
            training = FromTwin(cfg, share, not args.no_teacher, resume)
        else:
            epochs = OBJECT_EPOCHS if args.object_epochs is None else args.object_epochs
            training = FromObjects(cfg, epochs, resume)
            _check_batch(cfg)  # before the classifier is trained

    def interrupted() -> str:
        first = flag.removeprefix('--from-')
        return how_to_go_on(_stage_folder(cfg.work_dir, first), training.begun)

    with one_line_errors(interrupted, cfg.work_dir):
        training.run(make_runner, lambda stage: resume_from(stage, newest(stage.work_dir)))
    if is_main_process():
        print(training.summary())
        _print_place(cfg.work_dir)


def _print_place(work_dir: str) -> None:
    pictures = any(Path(work_dir).glob('*/vis_data/vis_image/*'))
    what = ', logs and pictures of detections' if pictures else ' and logs'
    print(f'Checkpoints{what}: {work_dir}')


def _stage_folder(work_dir: str, first: str) -> str:
    """Return where the newest checkpoint of a training in stages is."""
    last = newest_good_checkpoint(work_dir)[0]
    return work_dir if last else os.path.join(work_dir, first)


def main() -> None:
    """Train."""
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    keep_freed_memory()
    with one_line_errors():
        check_arguments(args)
    if flag := stages_flag(args):
        run_stages(args, flag)
        return
    with one_line_errors():
        runner = build_runner(args)
    with one_line_errors(lambda: how_to_go_on(runner.work_dir), runner.log_dir):
        runner.train()
    if is_main_process():
        _print_place(runner.work_dir)
