"""Detection under Gaussian noise on the membrane potentials."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..errors import naming
from ..spiking import HoyerSpike, spiking_layers
from .observation import change_potentials

NOTHING_DETECTED = 'nothing was detected: mAP'


@contextmanager
def potential_noise(model: nn.Module, sigma: float, seed: int = 0) -> Iterator[None]:
    """Add Gaussian noise to what every ``HoyerSpike`` receives while the block runs.

    Its standard deviation is ``sigma`` times the layer's clip threshold, |v|, so it is ``sigma`` in
    the units of z = u / |v|. Two networks of the same structure that see the same batches get the
    same noise in these units.

    Args:
        model: Network that holds ``HoyerSpike`` layers.
        sigma: Standard deviation in units of the threshold; with 0 nothing is added.
        seed: Seed of the noise.

    Raises:
        ValueError: If the network has no such layer.
    """
    if not spiking_layers(model):
        raise ValueError(
            f'{type(model).__name__} has no HoyerSpike layer: the noise is relative to the clip '
            'threshold of each layer, which other activations do not have'
        )
    if sigma == 0:
        yield
        return
    generators: dict[torch.device, torch.Generator] = {}

    def add(layer: HoyerSpike, u: Tensor) -> Tensor:
        if u.device not in generators:
            generators[u.device] = torch.Generator(u.device).manual_seed(seed)
        noise = torch.empty_like(u).normal_(generator=generators[u.device])
        return u + noise * (sigma * layer.threshold.detach().abs()).to(u.dtype)

    with change_potentials(model, add):
        yield


def build_evaluation(cfg: Config, split: str) -> tuple[DataLoader, Evaluator]:
    """Build the data loader and the evaluators of a split.

    Args:
        cfg: Completed config.
        split: ``'val'`` or ``'test'``.

    Raises:
        ValueError: Names the key of what cannot be built.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with naming(cfg, f'{split}_dataloader'):
        loader = Runner.build_dataloader(cfg[f'{split}_dataloader'], seed=0)
    with naming(cfg, f'{split}_evaluator'):
        evaluator = cfg[f'{split}_evaluator']
        evaluator = Evaluator(evaluator if isinstance(evaluator, list | tuple) else [evaluator])
    evaluator.dataset_meta = loader.dataset.metainfo
    return loader, evaluator


def evaluate(model: nn.Module, cfg: Config, split: str) -> dict[str, float]:
    """Evaluate a detector on a whole split with the evaluators of its config.

    Args:
        model: Detector in evaluation mode.
        cfg: Completed config.
        split: ``'val'`` or ``'test'``.

    Returns:
        The metrics; where nothing at all was detected also an mAP of 0, which ``CocoMetric`` then leaves
        out.
    """
    loader, evaluator = build_evaluation(cfg, split)
    detected = False
    with torch.no_grad():
        for batch in loader:
            samples = model.test_step(batch)
            detected |= any('pred_instances' not in s or len(s.pred_instances) for s in samples)
            evaluator.process(data_samples=samples, data_batch=batch)
    metrics = evaluator.evaluate(len(loader.dataset))
    return metrics if detected else {**metrics, NOTHING_DETECTED: 0.0}


def find_map(metrics: dict[str, Any], flag: str) -> tuple[str, float]:
    """Return name and value of the first metric whose name ends in ``mAP``.

    Args:
        metrics: What the evaluators returned.
        flag: What asked for it, for the message.

    Raises:
        ValueError: If no metric has such a name.
    """
    for name, value in metrics.items():
        if name.endswith('mAP'):
            return name, float(value)
    raise ValueError(
        f'{flag}: the evaluators return no mAP, only {", ".join(metrics) or "nothing"}'
    )


def noise_curve(
    model: nn.Module,
    run: Callable[[nn.Module], dict[str, Any]],
    sigmas: Sequence[float],
    seed: int = 0,
) -> tuple[str, dict[float, float]]:
    """Evaluate a detector without noise and under noise of several strengths.

    Args:
        model: Detector in evaluation mode.
        run: Evaluates it and returns its metrics, as :func:`evaluate` does.
        sigmas: Standard deviations in units of each layer's threshold.
        seed: Seed of the noise, the same for each strength.

    Returns:
        Name of the metric, and its value by strength, 0 included. The metric is the first whose name
        ends in ``mAP``.

    Raises:
        ValueError: If no metric has such a name.
    """
    curve: dict[float, float] = {}
    metric = NOTHING_DETECTED
    for sigma in sorted({0.0, *sigmas}):
        with potential_noise(model, sigma, seed):
            name, curve[sigma] = find_map(run(model), '--noise')
        metric = name if metric == NOTHING_DETECTED else metric
    return metric, curve
