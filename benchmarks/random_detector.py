"""Writes a detector of random weights whose neurons fire at a given rate, to measure speed with.

    python benchmarks/random_detector.py hoyer_ssd_voc ssd_20.pth --rate 0.2
    python benchmarks/random_detector.py hoyer_ssd_voc twin.pth --twin relu

The rate holds, channel by channel, on the image of dev/measure_exports.py and of `run.py --only inference`.
"""

import argparse
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from hoyer_det.commands.errors import one_line_errors
from hoyer_det.config import load_config
from hoyer_det.deploy.description import input_of
from hoyer_det.deploy.exported_detector import ExportedDetector
from hoyer_det.kernels import plain_kernels
from hoyer_det.spiking import HoyerSpike
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_SAMPLES = 20000  # potentials of a channel that its quantile is taken of


@contextmanager
def set_rate(model: nn.Module, rate: float) -> Iterator[None]:
    """Let each neuron that is called move the biases of the norm before it so that it fires at a rate."""
    norms: list[_BatchNorm] = []

    def remember(norm: _BatchNorm, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        norms.append(norm)

    def move(neuron: HoyerSpike, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        (u,) = inputs
        if not norms or norms[-1].num_features != u.size(1):
            return None
        level = neuron.extremum_scale * neuron.threshold.abs() * neuron.average_extremum()
        flat = u.transpose(0, 1).flatten(1)
        flat = flat[:, :: max(1, flat.size(1) // _SAMPLES)]
        shift = level - torch.quantile(flat, 1 - rate, dim=1)
        norms.pop().bias.data += shift
        return (u + shift.view(1, -1, 1, 1),)

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                hooks.enter_context(module.register_forward_hook(remember))
            elif isinstance(module, HoyerSpike):
                hooks.enter_context(module.register_forward_pre_hook(move))
        yield


def random_detector(
    config: str, rate: float = 0.2, twin: str | None = None
) -> tuple[nn.Module, Config]:
    """Build a detector of random weights, in evaluation mode.

    Args:
        config: Config file, or the name of a shipped one.
        rate: Share of entries that each channel of each neuron fires.
        twin: As ``--twin``; without neurons there is no rate.

    Returns:
        The detector, with ``dataset_meta``, and its config.
    """
    init_default_scope('mmdet')
    MMLogger.get_current_instance().setLevel('WARNING')  # not a line for each weight
    cfg = load_config(config, twin=twin, complete=False)
    cfg.model.get('detector', cfg.model).backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    size = input_of(cfg, model)['size']
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, *size), np.uint8))
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    with torch.no_grad(), plain_kernels(model):
        detector = ExportedDetector(model.eval(), tuple(size))
        for norm in norms:
            norm.momentum = 1.0
        detector.train()(image.expand(2, -1, -1, -1))
        for norm in norms:
            norm.momentum = 0.1
        with set_rate(model, rate):
            detector.eval()(image)
    classes = [f'class {index}' for index in range(model.bbox_head.num_classes)]
    model.dataset_meta = dict(classes=classes)
    return model, cfg


def main() -> None:
    """Build, set the rate, and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config')
    parser.add_argument('out', type=Path)
    parser.add_argument('--rate', type=float, default=0.2)
    parser.add_argument('--twin', choices=('relu',))
    args = parser.parse_args()
    warnings.simplefilter('ignore')  # of MMDetection's coders
    with one_line_errors():
        model, cfg = random_detector(args.config, args.rate, args.twin)
    meta = dict(cfg=cfg.pretty_text, dataset_meta=model.dataset_meta)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), args.out)


if __name__ == '__main__':
    main()
