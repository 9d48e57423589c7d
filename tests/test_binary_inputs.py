"""In a whole detector, every convolution but the stem reads nothing but zeros and ones."""

from pathlib import Path

import pytest
import torch
from hoyer_det.config import load_config
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

CONFIGS = Path(__file__).parents[1] / 'configs'
WIDTH = 1 / 16
STEM = 'backbone.stages.0.0.conv'


def narrow_detector(name: str) -> tuple[nn.Module, int]:
    """The detector of a config, at a sixteenth of the full width, and the side of its images."""
    cfg = load_config(CONFIGS / name)
    shrink = WIDTH / cfg.model.backbone.get('width', 1.0)

    def narrowed(channels):
        return tuple(round(c * shrink) for c in channels)

    init_default_scope('mmdet')
    model = cfg.model
    model.backbone.width = WIDTH
    model.neck.in_channels = narrowed(model.neck.in_channels)
    model.neck.out_channels = narrowed(model.neck.out_channels)
    model.bbox_head.in_channels = narrowed(model.bbox_head.in_channels)
    torch.manual_seed(0)
    detector = MODELS.build(model)
    detector.init_weights()
    return detector, model.bbox_head.anchor_generator.input_size


def values_read(detector: nn.Module, images: torch.Tensor) -> dict[str, list[float]]:
    """The distinct values (at most three of them) that each convolution reads, in order of calls."""
    seen: dict[str, list[float]] = {}

    def note(name):
        def hook(module, inputs):
            seen[name] = sorted(set(seen.get(name, [])) | set(inputs[0].unique().tolist()[:3]))

        return hook

    handles = [
        module.register_forward_pre_hook(note(name))
        for name, module in detector.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        detector(images, mode='tensor')
    for handle in handles:
        handle.remove()
    return seen


def check(detector: nn.Module, images: torch.Tensor) -> None:
    seen = values_read(detector, images)
    convolutions = [n for n, m in detector.named_modules() if isinstance(m, nn.Conv2d)]
    assert sorted(seen) == sorted(convolutions)
    assert next(iter(seen)) == STEM
    assert len(seen.pop(STEM)) == 3
    for name, values in seen.items():
        assert values == [0, 1], f'{name} reads {values}'


@pytest.mark.parametrize(
    'name',
    ['hoyer_ssd_voc.py', 'hoyer_ssd512_voc.py', 'hoyer_ssd_shapes.py', 'twins/onebit_ssd_voc.py'],
)
def test_every_convolution_but_the_stem_reads_spikes(name):
    detector, side = narrow_detector(name)
    images = torch.randn(4, 3, side, side)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # evaluation takes over the statistics of these images
    check(detector.train(), images)
    check(detector.eval(), images)


def test_the_check_fails_on_the_relu_twin():
    detector, side = narrow_detector('twins/relu_ssd_voc.py')
    with pytest.raises(AssertionError, match='reads'):
        check(detector.train(), torch.randn(2, 3, side, side))
