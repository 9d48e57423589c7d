"""``hoyer-det export CONFIG CHECKPOINT OUT.onnx``: write a detector for ONNX Runtime and OpenVINO."""

import argparse
from pathlib import Path

from hoyer_det_runtime.engines import ENGINES

from ..config import check_data, load_config
from ..engine.checkpoint import check_fit, read_finite
from ..twins import check_twin
from ..weights.zoo import zoo_path
from .arguments import add_config_options, add_twin_option
from .errors import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        description='Write a detector as one ONNX file of integer weights and firing levels, checked '
        'spike by spike; a ReLU twin becomes an int8 model.'
    )
    parser.add_argument('config', help='config file, or the name of a shipped one')
    parser.add_argument('checkpoint', help='checkpoint file, or a model of the zoo')
    parser.add_argument('out', metavar='OUT.onnx', type=Path, help='file to write')
    parser.add_argument(
        '--engine',
        nargs='+',
        choices=list(ENGINES),
        default=['onnxruntime'],
        help='engines in which the file is checked (onnxruntime)',
    )
    parser.add_argument(
        '--weights', type=int, default=8, metavar='BITS', help='bits of each weight, 2 to 8 (8)'
    )
    parser.add_argument(
        '--heads', choices=['int8', 'fp32'], default='int8', help='weights of read-outs (int8)'
    )
    parser.add_argument(
        '--stem', choices=['int8', 'fp32'], default='int8', help='the first convolution (int8)'
    )
    parser.add_argument('--float', action='store_true', help='leave everything in float32')
    parser.add_argument('--nms', action='store_true', help='also an output after NMS: detections')
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('H', 'W'), help="size of the input (the config's)"
    )
    parser.add_argument(
        '--calibration-images',
        type=int,
        default=64,
        help='training images that set the ranges of an int8 ReLU twin (64)',
    )
    add_twin_option(parser)
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    """Export."""
    args = parse_args()
    with one_line_errors():
        run(args)


def run(args: argparse.Namespace) -> None:
    """Do the work.

    Raises:
        ValueError: If something does not fit, or the check fails.
    """
    if args.out.suffix != '.onnx':
        raise ValueError(f'{args.out}: must end in .onnx')
    if args.out.is_dir():
        raise ValueError(f'{args.out}: is a folder')
    try:
        from ..deploy.export import ExportSettings, export
    except ImportError as error:
        raise ValueError(
            f'export needs onnx, onnxscript and onnxruntime ({error}); pip install "hoyer_det[deploy]"'
        ) from error
    from ..deploy.loading import build_for_export

    args.checkpoint = zoo_path(args.checkpoint)
    # Only calibration needs the data.
    to_int8 = args.twin == 'relu' and not args.float
    cfg = load_config(args.config, args.cfg_options, args.twin, complete=to_int8)
    check_twin(cfg, args.checkpoint)
    checkpoint = read_finite(args.checkpoint)
    model = build_for_export(cfg, checkpoint, args.checkpoint)
    check_fit(checkpoint, model, args.checkpoint, str(cfg.filename))
    model.load_state_dict(checkpoint.weights)
    quantize = None
    if to_int8:
        from ..deploy.int8 import quantizer, training_images

        check_data(cfg, ('train_dataloader',))
        quantize = quantizer(training_images(cfg, args.calibration_images), args.heads)
    settings = ExportSettings(
        weights=args.weights,
        heads=args.heads,
        stem=args.stem,
        real=args.float,
        nms=args.nms,
        shape=tuple(args.shape) if args.shape else None,
        engines=args.engine,
    )
    outcome = export(model, cfg, args.out, settings, args.checkpoint, quantize)
    for layer in outcome.layers:
        if layer.kind != 'integer':
            print(f'{layer.kind}, {layer.bits} bits: {layer.name} ({layer.note})')
    integer = [layer for layer in outcome.layers if layer.kind == 'integer']
    if integer:
        print(f'integer: {len(integer)} convolutions with the neurons behind them')
    for comparison in outcome.comparisons:
        print(comparison)
    size = args.out.stat().st_size
    print(f'{args.out}: {outcome.kind}, {size / 1e6:.1f} MB')
