"""``hoyer-det test CONFIG CHECKPOINT``: evaluate a detector or classifier."""

import argparse
import statistics
from pathlib import Path

from hoyer_det_runtime import ENGINES
from hoyer_det_runtime.description import read_description
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults

from ..config import check_data, load_config
from ..engine.checkpoint import load_trained
from ..inference.exported import ExportedModel
from ..training.memory import keep_freed_memory
from ..training.runner import CommandRunner
from ..training.settings import check_settings
from ..twins import other_twin
from ..weights.zoo import checkpoint_file
from .arguments import add_common_arguments, check_file, set_up_work_dir
from .errors import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the flags; they are those of MMDetection's tools/test.py."""
    parser = argparse.ArgumentParser(description='Evaluate a detector or classifier.')
    parser.add_argument('config', help='config file, or the name of a shipped one')
    parser.add_argument(
        'checkpoint', help='checkpoint file, a model of the zoo, or an exported file'
    )
    parser.add_argument('--out', metavar='FILE.pkl', help='dump the predictions into a pickle file')
    parser.add_argument('--show', action='store_true', help='show the pictures on a screen')
    parser.add_argument('--show-dir', help='folder for the pictures, below work_dir/timestamp')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between shown pictures')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--engine', choices=list(ENGINES), help='for an exported file (onnxruntime)'
    )
    parser.add_argument('--threads', type=int, help='of an exported file')
    add_common_arguments(parser)
    return parser.parse_args()


def add_tta(cfg: ConfigDict) -> None:
    """Augment as ``tta_model`` and ``tta_pipeline`` say; by default each image is seen flipped and not."""
    cfg.setdefault(
        'tta_model',
        dict(
            type='DetTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        ),
    )
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:  # of a wrapper such as RepeatDataset
        dataset = dataset.dataset
    if cfg.get('tta_pipeline') is None:
        *steps, pack = dataset.pipeline
        if 'meta_keys' in pack:  # those by default have both
            pack['meta_keys'] = (*pack['meta_keys'], 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        cfg.tta_pipeline = [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def use_exported(cfg: Config, args: argparse.Namespace) -> None:
    """Put an exported file in the place of the model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none, or flags do not fit it.
    """
    if args.tta:
        raise ValueError('--tta: an exported file has no test-time augmentation')
    engine = args.engine or 'onnxruntime'
    if args.threads is not None and args.threads < 1:
        raise ValueError(f'--threads {args.threads}: must be at least 1')
    description = read_description(args.checkpoint)  # before anything is built
    relu_of_spikes = args.twin == 'relu' and description.get('kind') == 'spiking'
    if relu_of_spikes or (args.twin and description.get('twin', args.twin) != args.twin):
        what = f'{args.checkpoint}: is a file'
        raise ValueError(other_twin(what, description.get('twin'), args.twin))
    cfg.model = dict(
        type='ExportedModel', path=args.checkpoint, engine=engine, threads=args.threads
    )
    cfg.custom_hooks = []  # they look for neurons


def build_runner(args: argparse.Namespace) -> CommandRunner:
    """Make a runner from the flags, with all that can go wrong before the first image."""
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--out {args.out}: must end in .pkl or .pickle')
    if args.out is not None:
        check_file('--out', args.out)
    cfg = load_config(args.config, args.cfg_options, args.twin)
    set_up_work_dir(cfg, args)
    check_settings(cfg, 'test')
    check_data(cfg, ('test_dataloader',))
    if args.checkpoint.lower().endswith('.onnx'):
        use_exported(cfg, args)
    elif args.engine is not None or args.threads is not None:
        raise ValueError(
            f'{args.checkpoint}: --engine and --threads are for exported files (.onnx)'
        )
    else:
        args.checkpoint = checkpoint_file(args.checkpoint)
        load_trained(cfg, args.checkpoint)  # refuses one that does not belong to the config
        cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        if (cfg.get('default_hooks') or {}).get('visualization') is None:
            raise ValueError(
                f'{cfg.filename}: default_hooks.visualization=None: draws what --show and --show-dir ask for'
            )
        cfg = trigger_visualization_hook(cfg, args)
    if args.tta:
        add_tta(cfg)
    runner = CommandRunner.from_cfg(cfg)
    with runner.set_up():
        metrics = runner.test_loop.evaluator.metrics  # builds the loop, which reads the data set
        if isinstance(runner.model, ExportedModel):
            known = list(runner.model.runtime.classes)
            wanted = list(runner.test_loop.dataloader.dataset.metainfo['classes'])
            if known != wanted:
                raise ValueError(
                    f'{args.checkpoint}: knows the classes {known}, the test data has {wanted}'
                )
    if args.out is not None:
        dump = DumpResults if cfg.model.type == 'SpikingClassifier' else DumpDetResults
        metrics.append(dump(out_file_path=args.out))
    return runner


def main() -> None:
    """Evaluate."""
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    keep_freed_memory()
    with one_line_errors():
        runner = build_runner(args)
    with one_line_errors(log_dir=runner.log_dir):
        runner.test()
    if isinstance(runner.model, ExportedModel):
        times = runner.model.milliseconds
        print(f'{statistics.median(times):.1f} ms per image, the median of {len(times)}')
    pictures = any(Path(runner.log_dir).rglob('*.[jp][pn]g'))
    print(f'Metrics{" and pictures of detections" if pictures else ""}: {runner.log_dir}')
