"""``hoyer-det analyze CONFIG CHECKPOINT``: what a model costs."""

import argparse
import datetime
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from ..analysis.crosscheck import cross_check
from ..analysis.energy import ENERGY_TABLES, load_energy_table
from ..analysis.measure import build_dataset, load_detector, measure, spread_images
from ..analysis.noise import evaluate, noise_curve
from ..analysis.report import Analysis, number, write_report
from ..analysis.spikes import choose_maps
from ..analysis.tables import energy_rows, layer_rows, totals
from ..config import check_data, load_config
from ..engine.checkpoint import check_checkpoint
from ..spiking import spiking_layers
from .arguments import add_config_options
from .errors import one_line_errors


@dataclass
class Subject:
    """A network to look at."""

    config: str
    checkpoint: str
    cfg: Config
    name: str
    model: nn.Module | None = None


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        description='Spikes, operations, memory and energy of a checkpoint.'
    )
    parser.add_argument('config', help='config file of a spiking detector')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--data', choices=['val', 'test', 'train'], default='val', help='which images (val)'
    )
    parser.add_argument(
        '--images', type=int, default=32, help='how many, spread evenly over the data set (32)'
    )
    parser.add_argument('--out', help='folder of the report (work_dirs/<config name>/analysis)')
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
        metavar='SIGMA',
        help='also evaluate under Gaussian noise on the membrane potentials, of these standard '
        "deviations in units of each layer's threshold, on the whole split",
    )
    parser.add_argument('--noise-seed', type=int, default=0, help='seed of the noise (0)')
    parser.add_argument(
        '--compare',
        nargs=2,
        action='append',
        default=[],
        metavar=('CONFIG', 'CHECKPOINT'),
        help='another network to measure beside it; may be given several times',
    )
    parser.add_argument('--names', nargs='+', help='a name for each network, in order')
    parser.add_argument(
        '--maps', nargs='+', metavar='LAYER', help='spiking layers to draw maps of (parts of names)'
    )
    parser.add_argument(
        '--cross-check',
        action='store_true',
        help='count the first image with SpikingJelly and MMEngine, too',
    )
    add_config_options(parser)
    return parser.parse_args()


def check_flags(args: argparse.Namespace) -> None:
    """Refuse values that argparse lets through."""
    if args.images < 1:
        raise ValueError(f'--images {args.images}: must be at least 1')
    for sigma in args.noise or ():
        if not (sigma >= 0 and math.isfinite(sigma)):
            raise ValueError(f'--noise {sigma}: must be 0 or more')
    if args.noise and args.data == 'train':
        raise ValueError('--noise: needs --data val or test, there is no evaluator for train')
    count = 1 + len(args.compare)
    if args.names and (len(args.names) != count or len(set(args.names)) != count):
        raise ValueError(f'--names: {count} different names are needed, got {args.names}')
    if args.out and Path(args.out).exists() and not Path(args.out).is_dir():
        raise ValueError(f'--out {args.out}: is a file, a folder is needed')


def name_subjects(pairs: list[tuple[str, str]], names: list[str] | None) -> list[str]:
    """Return the given names, else the configs', with the checkpoint's folder where these are equal."""
    if names:
        return names
    stems = [Path(config).stem for config, _ in pairs]
    if len(set(stems)) < len(stems):
        stems = [f'{Path(file).parent.name}/{Path(file).stem}' for _, file in pairs]
    if len(set(stems)) < len(stems):
        raise ValueError('--compare: the same network twice; tell them apart by --names')
    return stems


def load_subjects(args: argparse.Namespace) -> list[Subject]:
    """Load every network, with all that can go wrong before the first image."""
    pairs = [(args.config, args.checkpoint), *map(tuple, args.compare)]
    subjects = []
    for (config, file), name in zip(pairs, name_subjects(pairs, args.names), strict=True):
        cfg = load_config(config, args.cfg_options)
        check_data(cfg, (f'{args.data}_dataloader',))
        subjects.append(Subject(config, file, cfg, name))
        if args.noise and not cfg.get(f'{args.data}_evaluator'):
            raise ValueError(f'--noise: {config} has no {args.data}_evaluator')
    for subject in subjects:
        check_checkpoint(subject.cfg, subject.checkpoint)
        subject.model = load_detector(subject.cfg, subject.checkpoint, get_device())
        if spiking_layers(subject.model):
            continue
        if subject is subjects[0]:
            raise ValueError(
                f'{subject.config}: its model has no HoyerSpike layer; analyze a spiking network, and '
                'give this one with --compare'
            )
        if args.noise:
            raise ValueError(
                f'--noise: {subject.config} has no HoyerSpike layer; the noise is relative to the clip '
                'threshold of each layer, which other activations do not have. Leave this network out'
            )
    return subjects


def analyze(args: argparse.Namespace) -> Analysis:
    """Measure everything that was asked for."""
    check_flags(args)
    table = load_energy_table(args.energy)
    subjects = load_subjects(args)
    first = subjects[0]
    if args.maps:
        choose_maps(spiking_layers(first.model), args.maps)
    models, noise, metric, checked = {}, {}, '', {}
    for subject in subjects:
        dataset = build_dataset(subject.cfg, args.data)
        models[subject.name] = measure(subject.model, dataset, args.images)
        if subject is first:
            if not models[subject.name].spikes:
                raise ValueError(f'{subject.config}: no HoyerSpike layer of its model ever ran')
            images = len(dataset)
            if args.cross_check:
                checked = cross_check(
                    subject.model, lambda data=dataset: next(spread_images(data, 1))
                )
    for subject in subjects if args.noise else ():
        metric, noise[subject.name] = noise_curve(
            subject.model,
            lambda model, cfg=subject.cfg: evaluate(model, cfg, args.data),
            args.noise,
            args.noise_seed,
        )
    measured = models[first.name]
    with_maps = [name for name, layer in measured.spikes.items() if layer.spike_map is not None]
    facts = dict(
        config=first.config,
        checkpoint=first.checkpoint,
        data=f'{measured.images} of {images} {args.data} images, evenly spread',
        date=datetime.datetime.now().strftime('%Y-%m-%d %H:%M'),
        torch=torch.__version__,
        device=get_device(),
    )
    command = shlex.join(['hoyer-det', 'analyze', *sys.argv[1:]])
    if not args.maps:  # the smallest maps say nothing about places
        with_maps = [n for n in with_maps if min(measured.spikes[n].spike_map.shape) >= 4]
    maps = choose_maps(with_maps, args.maps)
    return Analysis(models, table, maps, facts, command, metric, noise, args.noise_seed, checked)


def print_tables(analysis: Analysis) -> None:
    """Print a line a layer, the totals and the energies."""
    name, measured = next(iter(analysis.models.items()))
    rows = layer_rows(measured, analysis.table)
    width = max(len(row['layer']) for row in rows)
    print(f'{"layer":<{width}}  {"dense":>8}  {"density":>13}  input  {"add":>8}  {"multiply":>8}')
    for row in rows:
        density = f'{row["input_density"]:.1%} ± {100 * row["input_density_std"]:.1f}'
        print(
            f'{row["layer"]:<{width}}  {number(row["dense_macs"]):>8}  {density:>13}  '
            f'{row["input"]:<5}  {number(row["accumulates"] + row["map_additions"]):>8}  '
            f'{number(row["remaining_macs"]):>8}'
        )
    for what, why in measured.not_counted.items():
        print(f'not counted: {what}: {why}')
    if measured.not_run:
        print(f'did not run: {", ".join(measured.not_run)}')
    total = totals(measured)
    print(
        f'{name}, {measured.images} images: an image takes {number(total["dense_macs"])} dense '
        f'multiply-accumulates, {total["binary_share"]:.1%} of them on inputs verified to be 0 or 1; '
        f'{number(total["accumulates"])} additions and {number(total["remaining_macs"])} '
        f'multiply-accumulates remain. {total["spike_rate"]:.1%} of the neurons fire.'
    )
    table = analysis.table
    print(f'\nMicrojoules an image ({table.name}; {table.memory})')
    energies = energy_rows(analysis.models, table)
    width = max(len(row['network']) for row in energies)
    print(f'{"":<{width}}  {"computation":>11}  {"memory":>8}  {"total":>8}')
    for row in energies:
        cost = row[table.name]
        print(
            f'{row["network"]:<{width}}  {cost["compute_uj"]:>11.2f}  {cost["memory_uj"]:>8.2f}  '
            f'{cost["total_uj"]:>8.2f}'
        )
    for name, curve in analysis.noise.items():
        points = ', '.join(f'{sigma:g}: {value:.3f}' for sigma, value in curve.items())
        print(f'{analysis.metric} under noise, {name}: {points}')
    for counter, counts in analysis.cross_check.items():
        print(f'{counter}: {counts}')


def main() -> None:
    """Measure, print, write."""
    args = parse_args()
    with one_line_errors():
        analysis = analyze(args)
        folder = args.out or Path('work_dirs') / Path(args.config).stem / 'analysis'
        files = write_report(analysis, folder)
    print_tables(analysis)
    print('\nWritten: ' + ', '.join(map(str, files)))
