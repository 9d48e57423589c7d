"""``hoyer-det export CONFIG CHECKPOINT OUT``: a detector for ONNX Runtime and OpenVINO, or a NIR graph."""

import argparse
from collections import Counter
from pathlib import Path

import torch
from hoyer_det_runtime.engines import ENGINES
from mmengine.config import Config
from torch import nn

from ..config import check_data, dataset_classes, load_config
from ..datasets.completion import set_num_classes
from ..deploy import fold
from ..deploy.description import input_of
from ..engine.checkpoint import build_trained, read_finite
from ..files import replacing
from ..training.settings import check_settings
from ..twins import check_twin
from ..weights.zoo import checkpoint_file
from .arguments import add_config_options, add_twin_option, check_file
from .errors import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        description='Write a detector as one ONNX file of integer weights and firing levels, checked '
        'spike by spike; a ReLU twin becomes an int8 model. OUT.nir gets the spiking part as a graph of '
        'the Neuromorphic Intermediate Representation.'
    )
    parser.add_argument('config', help='config file, or the name of a shipped one')
    parser.add_argument('checkpoint', help='checkpoint file, or a model of the zoo')
    parser.add_argument(
        'out', metavar='OUT', type=Path, help='file to write: .onnx, or .nir for the spiking part'
    )
    parser.add_argument(
        '--engine',
        nargs='+',
        choices=list(ENGINES),
        help='engines in which the file is checked (onnxruntime)',
    )
    parser.add_argument(
        '--weights',
        type=int,
        metavar='BITS',
        help='bits of each weight, 2 to 8 (8, or those of a fine-tuning with rounded weights)',
    )
    parser.add_argument(
        '--heads', choices=['int8', 'fp32'], default='int8', help='weights of read-outs (int8)'
    )
    parser.add_argument(
        '--stem', choices=['int8', 'fp32'], default='int8', help='the first convolution (int8)'
    )
    parser.add_argument(
        '--float', action='store_true', help='everything in float32, with batch norms folded'
    )
    parser.add_argument('--nms', action='store_true', help='also an output after NMS: detections')
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('H', 'W'), help="size of the input (the config's)"
    )
    parser.add_argument(
        '--calibration-images',
        type=int,
        metavar='N',
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
    if args.out.suffix not in ('.onnx', '.nir'):
        raise ValueError(f'{args.out}: must end in .onnx or .nir')
    check_file('OUT', args.out)
    if args.weights is not None and not 2 <= args.weights <= 8:
        raise ValueError(f'--weights {args.weights}: must be from 2 to 8 bits')
    if args.shape and min(args.shape) < 1:
        raise ValueError(f'--shape {args.shape[0]} {args.shape[1]}: must be at least 1')
    if args.out.suffix == '.nir':
        write_nir(args)
    else:
        write_onnx(args)


def load_detector(args: argparse.Namespace, complete: bool = False) -> tuple[Config, nn.Module]:
    """Return the config, completed by its data if that is wanted, and the trained detector."""
    cfg = load_config(args.config, args.cfg_options, args.twin, complete=complete)
    check_settings(cfg, 'export')
    if cfg.get('twin') == 'lif':  # by the flag, or dumped
        raise ValueError(
            f'{args.config}: a lif twin, a network of several time steps, cannot be exported'
        )
    args.checkpoint = checkpoint_file(args.checkpoint)
    checkpoint = read_finite(args.checkpoint)
    check_twin(cfg, checkpoint)
    classes = checkpoint.dataset_meta['classes'] or dataset_classes(cfg)
    if not classes:
        raise ValueError(
            f'{args.checkpoint}: does not name its classes (meta.dataset_meta.classes)'
        )
    set_num_classes(cfg.model, len(classes))  # of a config that takes them from its data
    model = build_trained(cfg, checkpoint)
    model.dataset_meta = dict(classes=classes)
    return cfg, model


def write_nir(args: argparse.Namespace) -> None:
    """Write the spiking part as a NIR graph."""
    for flag, given in (
        ('--float', args.float),
        ('--nms', args.nms),
        ('--twin', args.twin),
        ('--heads', args.heads != 'int8'),
        ('--engine', args.engine),
        ('--calibration-images', args.calibration_images is not None),
    ):
        if given:
            raise ValueError(f'{flag}: does not go with {args.out}, the spiking part alone')
    if args.stem != 'int8':
        raise ValueError('--stem fp32: a NIR file has integers alone; leave it out')
    try:
        import nir

        from ..deploy.nir_graph import to_nir
    except ImportError as error:
        raise ValueError(f'{args.out}: needs the package nir ({error}); pip install nir') from error
    cfg, model = load_detector(args)
    given = input_of(cfg, model, args.shape)
    folded = fold(model, args.weights, size=tuple(given['size']))
    zero = getattr(folded.data_preprocessor, 'mean', torch.zeros(1)).flatten()[0].item()
    classes = ', '.join(model.dataset_meta['classes'])
    graph = to_nir(folded, given['size'], zero=zero, channels=given['channels'], classes=classes)
    with replacing(args.out) as part:
        nir.write(str(part), graph)
    kinds = Counter(type(node).__name__ for node in graph.nodes.values())
    print(f'{args.out}: backbone and neck, {", ".join(f"{n} {kind}" for kind, n in kinds.items())}')


def write_onnx(args: argparse.Namespace) -> None:
    """Write and check an ONNX file."""
    try:
        from ..deploy.export import ExportSettings, export
    except ImportError as error:
        raise ValueError(
            f'export needs packages ({error}); pip install onnx onnxscript onnxruntime'
        ) from error
    to_int8 = args.twin == 'relu' and not args.float
    if args.calibration_images is not None and not to_int8:
        raise ValueError(
            '--calibration-images: is for --twin relu without --float, the int8 file; leave it out'
        )
    cfg, model = load_detector(args, complete=to_int8)  # only calibration needs the data
    quantize = None
    if to_int8:
        from ..deploy.int8 import quantizer, training_images

        check_data(cfg, ('train_dataloader',))
        number = args.calibration_images
        images = training_images(cfg) if number is None else training_images(cfg, number)
        quantize = quantizer(images, args.heads)
    settings = ExportSettings(
        weights=args.weights,
        heads=args.heads,
        stem=args.stem,
        real=args.float,
        nms=args.nms,
        shape=tuple(args.shape) if args.shape else None,
        engines=args.engine or ['onnxruntime'],
    )
    outcome = export(model, cfg, args.out, settings, args.checkpoint, quantize)
    for layer in outcome.layers:
        if layer.kind != 'integer':
            print(f'{layer.kind}, {layer.bits} bits: {layer.name} ({layer.note})')
    integer = [layer for layer in outcome.layers if layer.kind == 'integer']
    if integer:
        print(f'integer: {len(integer)} convolutions with the neurons behind them')
    for comparison in outcome.comparisons:
        print('float32, before it became int8: ' * (outcome.kind == 'int8') + str(comparison))
    if not outcome.comparisons:
        print('not compared: neurons in float32 next to their level round as each engine does')
    if outcome.ran:
        print(f'the file as it is written was run in {", ".join(outcome.ran)}')
    size = args.out.stat().st_size
    print(f'{args.out}: {outcome.kind}, {size / 1e6:.1f} MB')
