"""Runs a detector on random images, to see how it uses its activations."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from mmdet.models import BaseDetector, BaseMOTModel, DetDataPreprocessor, TrackDataPreprocessor
from mmdet.models.backbones.csp_darknet import Focus
from mmdet.models.task_modules.samplers import BaseSampler
from mmdet.testing import demo_mm_inputs, demo_mm_proposals, demo_track_inputs
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from torch import nn

from .forward_trace import ForwardTrace, trace_forward

# Sides of the images in pixels: the larger ones for detectors of a fixed size, such as SSD.
SIDES = (128, 320, 512)
RGB = 3  # channels
BOXES = 16  # proposals and predictions of an image, where a config asks for up to thousands


def dry_run(
    model: nn.Module, activations: tuple[type[nn.Module], ...], names: Sequence[str]
) -> ForwardTrace:
    """Compute the loss of random images, and predict on others of twice the height.

    Args:
        model: Detector of MMDetection, for images or videos; left as it is.
        activations: Classes that count as activations.
        names: Activations that matter.

    Returns:
        What the activations did.

    Raises:
        ValueError: If neither went through and an activation that matters was not reached.
    """
    failed: list[tuple[str, Exception]] = []
    # RGB for a network that folds or embeds its images before it convolves them.
    for channels in dict.fromkeys((_image_channels(model), RGB)):
        for side in SIDES:
            shapes = (channels, side, side), (channels, 2 * side, side)
            forwards = [partial(_loss, shape=shapes[0]), partial(_predict, shape=shapes[1])]
            trace = trace_forward(model, activations, forwards)
            missing = [name for name in names if trace.use(name) is None]
            if not missing or len(trace.errors) < len(forwards):
                return trace
            if isinstance(trace.errors[0], NotImplementedError):  # an operator of a compiled mmcv
                break
        failed.append((missing[0], trace.errors[0]))
    name, error = failed[0]
    text = ' '.join(str(error).split())
    raise ValueError(
        f'SpikingDetector: {name} of {type(model).__name__} cannot be converted, as a forward pass '
        f'on random images ends before it: {type(error).__name__}: {text}'
    )


def _image_channels(model: nn.Module) -> int:
    """Return the channels of the images that a detector reads, those of its first convolution."""
    for module in getattr(model, 'backbone', model).modules():
        if isinstance(module, Focus):  # lays squares of 2 x 2 pixels on one another
            return module.conv.conv.in_channels // 4
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return RGB


def _loss(model: nn.Module, shape: tuple[int, int, int]) -> None:
    for detector in _detectors(revert_sync_batchnorm(model)):
        data = _batch(detector, 2, shape)
        detector.train()
        detector.loss(data['inputs'], data['data_samples'])


def _predict(model: nn.Module, shape: tuple[int, int, int]) -> None:
    for detector in _detectors(model):
        data = _batch(detector, 1, shape)
        detector.eval()
        detector.predict(data['inputs'], data['data_samples'])


def _detectors(model: nn.Module) -> list[nn.Module]:
    """Return the detectors inside a semi-supervised one, or else the model itself, at few boxes."""
    for module in model.modules():
        for value in vars(module).values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, BaseSampler) and hasattr(item, 'num'):
                    item.num = min(item.num, BOXES)
                _limit_boxes(item)
    inner = [m for m in model.modules() if isinstance(m, BaseDetector) and m is not model]
    return [model] if isinstance(model, BaseMOTModel) or not inner else inner


def _limit_boxes(cfg: Any) -> None:
    """Lower the numbers of boxes in the parts of a ``test_cfg`` that select them by NMS."""
    if isinstance(cfg, ConfigDict):
        for key, value in cfg.items():
            if 'nms' in cfg and key in ('nms_pre', 'max_per_img') and isinstance(value, int):
                cfg[key] = min(value, BOXES)
            _limit_boxes(value)


def _batch(detector: nn.Module, images: int, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return random images with all annotations that any detector asks for."""
    options = dict(image_shapes=shape, num_items=[4] * images, with_mask=True)
    if isinstance(detector, BaseMOTModel):
        batch = demo_track_inputs(1, key_frames_inds=[0], **{**options, 'num_items': [4]})
        return TrackDataPreprocessor()(batch)
    batch = demo_mm_inputs(images, num_classes=2, with_semantic=True, **options)
    for sample in batch['data_samples']:
        sample.gt_instances.labels.zero_()  # the one class that every detector has
        if not getattr(detector, 'with_rpn', True):  # as Fast R-CNN has none
            (sample.proposals,) = demo_mm_proposals([shape], BOXES)
    return DetDataPreprocessor()(batch)
