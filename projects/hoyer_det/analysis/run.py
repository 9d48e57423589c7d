"""Runs a whole analysis: loads the networks, measures them, and collects what a report shows."""

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from ..config import check_data, load_config
from ..engine.checkpoint import load_trained
from ..spiking import spiking_layers, untrained_warning
from ..weights.zoo import checkpoint_file
from .crosscheck import cross_check as count_again
from .crosscheck import spikingjelly_counters
from .energy import ESTIMATED_TWINS, load_energy_table
from .energy import networks as run_ways
from .measure import Measurement, build_dataset, measure, spread_images
from .neurons import choose_maps
from .noise import NOTHING_DETECTED, build_evaluation, evaluate, find_map, noise_curve
from .provenance import code_version, known_map, sha256, time_text
from .tables import Analysis
from .timing import describe_processor, measure_milliseconds


@dataclass
class _Subject:
    """A network to measure."""

    cfg: Config
    checkpoint: str
    model: nn.Module
    meta: dict[str, Any]
    dataset: Any


def analyze(
    config: str,
    checkpoint: str,
    *,
    twin: str | None = None,
    data: str = 'val',
    images: int = 32,
    energy: str = '45nm',
    compare: Sequence[tuple[str, ...]] = (),
    names: Sequence[str] | None = None,
    maps: Sequence[str] | None = None,
    map_images: int = 3,
    noise: Sequence[float] = (),
    noise_seed: int = 0,
    evaluate_map: bool = False,
    runs: int = 10,
    cross_check: bool = False,
    cfg_options: dict[str, Any] | None = None,
    command: str = '',
) -> Analysis:
    """Measure a spiking detector on real images, and other networks beside it.

    Args:
        config: Config file of a spiking detector.
        checkpoint: Its checkpoint file, or a model of the zoo.
        twin: Kind of the twin of the config to measure, see :func:`hoyer_det.twins.make_twin`.
        data: Which images: ``'val'``, ``'test'`` or ``'train'``.
        images: How many, spread evenly over the data set.
        energy: Name of a table of energy constants, or a ``.json`` file.
        compare: Config and checkpoint of further networks; with a kind as a third, a twin of the config.
        names: A name for each network, in order; by default those of the configs.
        maps: Spiking layers to draw maps of (parts of names); six over the depth by default.
        map_images: Of how many images maps are drawn.
        noise: Standard deviations of noise on the potentials, in units of the thresholds; with any,
            every network is evaluated on the whole split.
        noise_seed: Seed of the noise.
        evaluate_map: Whether every network is evaluated on the whole split; with noise it always is.
        runs: How often one image is timed; 0 leaves the milliseconds out.
        cross_check: Whether to count the first image with SpikingJelly and MMEngine, too.
        cfg_options: Options that are merged into every config.
        command: Command line that the report names.

    Raises:
        ValueError: If an argument is out of its range or does not fit the networks.
        FileNotFoundError: If a file is missing.
    """
    if images < 1:
        raise ValueError(f'--images {images}: must be at least 1')
    if map_images < 1:
        raise ValueError(f'--map-images {map_images}: must be at least 1')
    for sigma in noise:
        if not (sigma >= 0 and math.isfinite(sigma)):
            raise ValueError(f'--noise {sigma}: must be 0 or more')
    if not 0 <= noise_seed < 2**64:
        raise ValueError(f'--noise-seed {noise_seed}: must be from 0 to {2**64 - 1}')
    if runs < 0:
        raise ValueError(f'--runs {runs}: must be 0 or more')
    evaluated = '--noise' if noise else '--evaluate' if evaluate_map else ''
    if evaluated and data == 'train':
        raise ValueError(f'{evaluated}: needs --data val or test, there is no evaluator for train')
    if cross_check:
        spikingjelly_counters()
    table = load_energy_table(energy)
    networks = [(config, checkpoint, twin), *((*network, None)[:3] for network in compare)]
    names = _names(networks, names)
    subjects = dict(zip(names, _load(networks, data, evaluated, cfg_options), strict=True))
    first = subjects[names[0]]
    if maps:
        choose_maps(spiking_layers(first.model), maps)
    models, checked, calls, shown = {}, {}, {}, []
    for name, subject in subjects.items():
        kept = map_images if subject is first else 0  # no report shows maps of another
        models[name] = measure(subject.model, subject.dataset, images, kept)
        calls[name] = _one_image(subject.model, subject.dataset)
        if subject is not first:
            continue
        if not models[name].neurons:
            raise ValueError(f'{config}: no HoyerSpike layer of its model ever ran')
        shown = _shown_maps(models[name], maps)
        if cross_check:
            checked = count_again(first.model, lambda: next(spread_images(first.dataset, 1)))
    metrics, curves = {}, {}
    for name, subject in subjects.items() if noise else ():
        metrics[name], curves[name] = noise_curve(
            subject.model,
            lambda model, cfg=subject.cfg: evaluate(model, cfg, data),
            noise,
            noise_seed,
        )
    measured = models[names[0]]
    durations = measure_milliseconds(calls, runs) if runs else {}
    accuracy = {}
    for name, subject in subjects.items():
        if evaluated:
            found = (
                (metrics[name], curves[name][0.0])
                if curves
                else find_map(evaluate(subject.model, subject.cfg, data), evaluated)
            )
            accuracy[name] = f'{found[1]:.3f} ({found[0]} on {data}, evaluated here)'
        else:
            accuracy[name] = known_map(subject.cfg, subject.checkpoint, subject.meta)
    facts = {
        'config': first.cfg.filename,
        'checkpoint': f'{first.checkpoint} (SHA-256 {sha256(first.checkpoint)})',
        'mAP': accuracy[names[0]],
        'time': time_text(durations.get(names[0])),
        'parameters': f'{measured.parameters:,}',
        'data': f'{measured.images} of {len(first.dataset)} {data} images, evenly spread',
        'code': code_version(),
        'date': datetime.datetime.now().strftime('%Y-%m-%d %H:%M'),
        'machine': f'{describe_processor()}; torch {torch.__version__} on {get_device()}',
    }
    untrained = {name: untrained_warning(subject.model) for name, subject in subjects.items()}
    if any(untrained.values()):
        facts['warning'] = '. '.join(f'{name}: {text}' for name, text in untrained.items() if text)
    return Analysis(
        models,
        table,
        shown,
        facts,
        accuracy,
        command,
        min(metrics.values(), key=NOTHING_DETECTED.__eq__, default=''),  # the first real one
        curves,
        noise_seed,
        checked,
        durations,
    )


def _shown_maps(measured: Measurement, wanted: Sequence[str] | None) -> list[str]:
    """Choose the layers whose maps are shown, of those that have some."""
    found = {
        name: min(next(iter(layer.maps.values())).shape)
        for name, layer in measured.neurons.items()
        if layer.maps
    }
    # Unasked, the smallest are left out, which say nothing about places.
    return choose_maps([name for name, size in found.items() if wanted or size >= 4], wanted)


def _names(networks: list[tuple[str, str, str | None]], names: Sequence[str] | None) -> list[str]:
    """Return a name for each network, such that no two rows of the report are labelled alike."""
    if names and (len(names) != len(networks) or len(set(names)) != len(networks)):
        raise ValueError(f'--names: {len(networks)} different names are needed, got {names}')
    names = list(names or _names_of_files(networks))
    taken = {network.label: 'an estimated twin' for network in ESTIMATED_TWINS}
    for name in names:
        labels = {way.label for spiking in (True, False) for way in run_ways(name, spiking)}
        for label in sorted(labels & taken.keys()):
            raise ValueError(
                f'--names: {name!r} would label a row {label!r}, as {taken[label]} does; give another'
            )
        taken.update(dict.fromkeys(labels, repr(name)))
    return names


def _names_of_files(networks: list[tuple[str, str, str | None]]) -> list[str]:
    """Return the names of the configs, where these are equal those of the checkpoints."""
    stems = [Path(config).stem + (f'_{twin}' if twin else '') for config, _, twin in networks]
    if len(set(stems)) < len(stems):
        stems = ['/'.join(Path(file).with_suffix('').parts[-2:]) for _, file, _ in networks]
    if len(set(stems)) < len(stems):
        raise ValueError('--compare: the same network twice; tell them apart by --names')
    return stems


def _load(
    networks: list[tuple[str, str, str | None]],
    data: str,
    evaluated: str,
    options: dict[str, Any] | None,
) -> list[_Subject]:
    """Load every network, with all that can go wrong before the first image."""
    cfgs = []
    for config, _, twin in networks:
        cfg = load_config(config, options, twin)
        if not cfg.get('model'):
            raise ValueError(f'{config}: has no model to analyze')
        check_data(cfg, (f'{data}_dataloader',))
        if evaluated and not cfg.get(f'{data}_evaluator'):
            raise ValueError(f'{evaluated}: {config} has no {data}_evaluator')
        cfgs.append(cfg)
    subjects = []
    for (_, checkpoint, _), cfg in zip(networks, cfgs, strict=True):
        config, checkpoint = cfg.filename, checkpoint_file(checkpoint)
        flag = '--compare-twin' if subjects else '--twin'
        model, meta = load_trained(cfg, checkpoint, flag)
        model.to(get_device())
        if not spiking_layers(model) and not subjects:
            kind = cfg.get('twin')
            flag = f'--compare-twin {kind} {checkpoint}' if kind else '--compare'
            raise ValueError(
                f'{config}: its model has no HoyerSpike layer; analyze a spiking network, and give '
                f'this one with {flag}'
            )
        if not spiking_layers(model) and evaluated == '--noise':
            raise ValueError(
                f'--noise: {config} has no HoyerSpike layer; the noise is relative to the clip '
                'threshold of each layer, which other activations do not have. Leave this network out'
            )
        dataset = build_dataset(cfg, data)
        if evaluated:
            build_evaluation(cfg, data)  # to see that it can be
        subjects.append(_Subject(cfg, checkpoint, model, meta, dataset))
    return subjects


def _one_image(model: nn.Module, dataset: Any) -> Callable[[], object]:
    """Return a call that takes the first image of a data set, decoded and resized, to its boxes."""
    (batch,) = spread_images(dataset, 1)

    def call() -> object:
        with torch.no_grad():
            return model.test_step(batch)

    return call
