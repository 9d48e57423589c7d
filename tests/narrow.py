"""The network of a config made narrow, random images for it, and what its convolutions read."""

from collections.abc import Callable
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

WIDTH = 1 / 16
_CHANNELS = ('in_channels', 'out_channels', 'feat_channels', 'fc_out_channels')


def narrow_model(cfg: Config) -> tuple[nn.Module, int]:
    """The detector of a config at a sixteenth of the full width, and a fitting side of its images.

    DarkNet has no argument for its width and stays as it is.
    """
    init_default_scope('mmdet')
    detector = cfg.model.get('detector', cfg.model)
    backbone = detector.backbone
    backbone.pop('init_cfg', None)  # its weights are of the full width
    shrink = 1.0
    if backbone.type == 'HoyerVGG':
        shrink = WIDTH / backbone.get('width', 1.0)
        backbone.width = WIDTH
    elif backbone.type == 'HoyerResNet':
        shrink = 64 * WIDTH / backbone.get('base_channels', 64)
        backbone.base_channels = int(64 * WIDTH)
    for key in detector:
        if key != 'backbone':
            _shrink(detector[key], shrink)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # evaluation takes over the statistics of the last batch
    head = detector.get('bbox_head', {})
    return model, head.get('anchor_generator', {}).get('input_size', 128)


def _shrink(node: Any, factor: float) -> None:
    if isinstance(node, list | tuple):
        for item in node:
            _shrink(item, factor)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _CHANNELS and isinstance(value, int):
                node[key] = round(value * factor)
            elif key in _CHANNELS:
                node[key] = [round(item * factor) for item in value]
            else:
                _shrink(value, factor)


def random_items(number: int, side: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random images with two boxes each, as a data set hands them out."""
    generator = torch.Generator().manual_seed(seed)
    items = []
    for _ in range(number):
        shape = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (side, side))
        sample = DetDataSample(metainfo=dict(shape, scale_factor=(1.0, 1.0)))
        boxes = torch.tensor([[0.06, 0.1, 0.5, 0.45], [0.3, 0.4, 0.95, 0.9]]) * side
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
        inputs = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
        items.append(dict(inputs=inputs, data_samples=sample))
    return items


def values_read(model: nn.Module, run: Callable[[], object]) -> dict[str, list[float]]:
    """The distinct values (at most three of a call) that each convolution or linear layer reads."""
    seen: dict[str, list[float]] = {}

    def note(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple) -> None:
            seen[name] = sorted(set(seen.get(name, [])) | set(inputs[0].unique().tolist()[:3]))

        return hook

    handles = [
        module.register_forward_pre_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return seen
