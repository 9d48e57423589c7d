"""``hoyer-det analyze CONFIG CHECKPOINT``: what a model costs."""

import argparse
import shlex
import sys
from pathlib import Path

from ..analysis import ENERGY_TABLES, analyze, write_report
from ..analysis.report import REPORT_FILES
from ..analysis.screen import as_text
from ..twins import TWINS
from .arguments import add_config_options, add_twin_option, check_folder
from .errors import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        description='Spikes, operations, memory and energy of a checkpoint.'
    )
    parser.add_argument(
        'config', help='config file of a spiking detector, or the name of a shipped one'
    )
    parser.add_argument('checkpoint', help='checkpoint file, or a model of the zoo')
    parser.add_argument(
        '--data', choices=['val', 'test', 'train'], default='val', help='which images (val)'
    )
    parser.add_argument(
        '--images', type=int, default=32, help='how many, spread evenly over the data set (32)'
    )
    parser.add_argument('--out', help='folder of the report (work_dirs/<config>[_<twin>]/analysis)')
    parser.add_argument(
        '--energy',
        default='45nm',
        metavar='TABLE',
        help=f'energy constants: {", ".join(ENERGY_TABLES)}, or a .json file (45nm)',
    )
    parser.add_argument(
        '--noise',
        type=float,
        nargs='+',
        default=[],
        metavar='SIGMA',
        help='also evaluate under Gaussian noise on the membrane potentials, of these standard '
        "deviations in units of each layer's threshold, on the whole split",
    )
    parser.add_argument('--noise-seed', type=int, default=0, help='seed of the noise (0)')
    parser.add_argument(
        '--evaluate',
        action='store_true',
        dest='evaluate_map',
        help='evaluate every network on the whole split for the mAP in the head of the report',
    )
    parser.add_argument(
        '--runs', type=int, default=10, help='how often one image is timed; 0 for not at all (10)'
    )
    parser.add_argument(
        '--compare',
        nargs=2,
        action='append',
        default=[],
        metavar=('CONFIG', 'CHECKPOINT'),
        help='another network to measure beside it; may be given several times',
    )
    parser.add_argument(
        '--compare-twin',
        nargs=2,
        action='append',
        default=[],
        metavar=('TWIN', 'CHECKPOINT'),
        help=f'the same with a twin of CONFIG: {", ".join(TWINS)}',
    )
    parser.add_argument('--names', nargs='+', help='a name for each network, in order')
    parser.add_argument(
        '--maps', nargs='+', metavar='LAYER', help='spiking layers to draw maps of (parts of names)'
    )
    parser.add_argument(
        '--map-images', type=int, default=3, help='of how many images maps are drawn (3)'
    )
    parser.add_argument(
        '--cross-check',
        action='store_true',
        help='count the first image with SpikingJelly and MMEngine, too',
    )
    add_twin_option(parser)
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    args = vars(parse_args())
    with one_line_errors():
        config, twin = args['config'], args['twin']
        name = Path(config).stem + (f'_{twin}' if twin else '')
        out = Path(args.pop('out') or f'work_dirs/{name}/analysis')
        check_folder('--out', out)
        for file in (out / name for name in REPORT_FILES):
            if file.is_dir():
                raise ValueError(f'{file}: is a folder; remove it, or choose another --out')
        args['compare'] += [(config, file, kind) for kind, file in args.pop('compare_twin')]
        analysis = analyze(**args, command=shlex.join(['hoyer-det', 'analyze', *sys.argv[1:]]))
        print(as_text(analysis))
        files = write_report(analysis, out)
    print('\nWritten: ' + ', '.join(map(str, files)))
