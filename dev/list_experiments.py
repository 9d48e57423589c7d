"""Write docs/experiments.md, what each config is and costs: ``python dev/list_experiments.py``."""

import argparse
import os
import platform
from datetime import date
from pathlib import Path

import hoyer_det  # noqa: F401  registers the modules, mends the pinned packages
import numpy as np
import torch
from hoyer_det.analysis import OperationCounter
from hoyer_det.commands.errors import one_line_errors
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

HEADER = """# The experiments

Every config in `configs/` with the network it trains, as `python dev/list_experiments.py` measured them
on {date} ({machine}). Weights are random here: the counts and the share of operations that read
exactly 0 or 1 follow from the structure, and each input was looked at while the network ran. Images are noise
of the size of the config's test pipeline. MACs are dense multiply-accumulates of one image; with a two-stage
detector they hold for the number of proposals it is set to.

| config | detector | backbone | input | weights | MACs | reading 0/1 | reading other numbers |
|---|---|---|---|---|---|---|---|
"""


def parse_args() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='*', type=Path, help='config files (all of configs/)')
    parser.add_argument('--out', type=Path, default=Path('docs/experiments.md'))
    return parser.parse_args()


def image_size(cfg: Config) -> tuple[int, int]:
    """Return height and width of a test image, padded as the model pads."""
    resize = next(step for step in cfg.test_pipeline if step['type'] == 'Resize')
    model = cfg.model.get('detector', cfg.model)
    divisor = model.data_preprocessor.get('pad_size_divisor', 1)
    width, height = (-(-side // divisor) * divisor for side in resize['scale'])
    return height, width


def build(cfg: Config, size: tuple[int, int]) -> nn.Module:
    """Build the detector and show it one batch, so that norms and neurons have their averages."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    cfg.model.get('detector', cfg.model).backbone.pop('init_cfg', None)  # no download
    model = MODELS.build(cfg.model)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(2, 3, *size), _samples(2, size), mode='tensor')
    return model.eval()


def _samples(number: int, size: tuple[int, int]) -> list[DetDataSample]:
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
    return [
        DetDataSample(metainfo=dict(shapes, scale_factor=(1.0, 1.0), img_id=index))
        for index in range(number)
    ]


def row(path: Path) -> str:
    """Measure one config and return its line of the table."""
    cfg = Config.fromfile(path)
    size = image_size(cfg)
    model = build(cfg, size)
    counter = OperationCounter(model)
    with torch.no_grad(), counter.image():
        model.predict(torch.randn(1, 3, *size), _samples(1, size), rescale=False)
    if counter.not_counted:
        raise RuntimeError(f'{path}: not counted: {counter.not_counted}')
    layers = [layer for layer in counter.layers if layer.dense]
    dense = sum(layer.dense for layer in layers)
    binary = sum(layer.dense for layer in layers if layer.input_kind == 'binary')
    others: dict[str, int] = {}
    for layer in layers:
        if layer.input_kind != 'binary':
            stem = layer is layers[0]
            key = 'stem' if stem else f'{layer.name.split(".")[0]} ({layer.input_kind})'
            others[key] = others.get(key, 0) + layer.dense
    weights = sum(parameter.numel() for parameter in model.parameters())
    backbone = cfg.model.get('detector', cfg.model).backbone
    depth = f'{backbone.type}-{backbone.depth}'
    width = backbone.get('width', backbone.get('base_channels', 64) / 64)
    cells = (
        f'`{path.name}`',
        type(model).__name__,
        depth + (f' x {width:g}' if width != 1 else ''),
        f'{size[1]}x{size[0]}',
        f'{weights / 1e6:.1f} M',
        f'{dense / 1e9:.3g} G',
        f'{np.floor(1000 * binary / dense) / 10:.1f} %',  # never rounded up to all
        ', '.join(f'{key} {macs / dense:.1%}' for key, macs in others.items()),
    )
    return f'| {" | ".join(cells)} |'


def main() -> None:
    """Measure all and write the page."""
    args = parse_args()
    MMLogger.get_instance('experiments', log_level='WARNING')
    with one_line_errors():
        lines = []
        for path in args.configs or sorted(Path('configs').glob('hoyer_*.py')):
            lines.append(row(path))
            print(lines[-1], flush=True)
        machine = f'{os.cpu_count()} CPU cores, no GPU, Python {platform.python_version()}'
        header = HEADER.format(date=date.today(), machine=machine)
        args.out.write_text(header + '\n'.join(lines) + '\n')
        print(f'written to {args.out}')


if __name__ == '__main__':
    main()
