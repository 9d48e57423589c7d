"""What an exported file says about itself: classes, preprocessing, post-processing, neurons."""

import math
from collections.abc import Sequence
from typing import Any

from hoyer_det_runtime.description import FORMAT
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from torch import nn

from ..version import __version__

_PASSED_OVER = ('LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs')
# Settings that change pixels, and the only value with which the runtime has the same pixels.
_PIXELS = {
    'LoadImageFromFile': dict(to_float32=False, color_type='color', imdecode_backend='cv2'),
    'Resize': dict(interpolation='bilinear', backend='cv2'),
}


def input_of(cfg: Config, model: nn.Module, shape: Sequence[int] | None = None) -> dict[str, Any]:
    """Describe how an image becomes the input, from the test pipeline of a config.

    Args:
        cfg: Config with a ``test_dataloader``.
        model: Its detector.
        shape: Height and width of the input, to which images are resized then; by default those of the
            pipeline, in whole multiples of the preprocessor's ``pad_size_divisor``.

    Returns:
        ``size`` [height, width], ``channels`` (``'rgb'`` or ``'bgr'``), ``scale`` [width, height] that images
        are resized to, ``keep_ratio``, ``pad`` (one number for all channels).

    Raises:
        ValueError: If the pipeline has a step or a setting that the runtime does not know, or none that
            resizes, or if images are padded with something that it cannot.
    """
    resize = None
    for step in get_test_pipeline_cfg(cfg):
        kind = str(step['type']).rsplit('.', 1)[-1]
        if kind == 'Resize' and 'scale' in step and resize is None:
            resize = step
        elif kind not in _PASSED_OVER:
            raise ValueError(
                f'export: the test pipeline has {kind}, which the runtime does not know; it knows '
                f'Resize to a scale and {", ".join(_PASSED_OVER)}'
            )
        for key, known in _PIXELS.get(kind, {}).items():
            if step.get(key, known) != known:
                raise ValueError(
                    f'export: {kind} of the test pipeline has {key}={step[key]!r}; the runtime knows '
                    f'{known!r} alone'
                )
    if resize is None:
        raise ValueError('export: the test pipeline has no Resize with a scale')
    scale = resize['scale']
    width, height = (scale, scale) if isinstance(scale, int) else scale
    preprocessor = model.data_preprocessor
    divisor = getattr(preprocessor, 'pad_size_divisor', 1)
    size = shape or [divisor * math.ceil(side / divisor) for side in (height, width)]
    if any(side % divisor for side in size):
        raise ValueError(f'export: height and width {tuple(size)} must be multiples of {divisor}')
    if shape:
        height, width = shape
    flips = getattr(preprocessor, '_channel_conversion', False)
    return dict(
        size=list(map(int, size)),
        channels='rgb' if flips else 'bgr',  # images are read as BGR
        scale=[int(width), int(height)],
        keep_ratio=bool(resize.get('keep_ratio', False)),
        pad=_pad(preprocessor),
    )


def output_of(
    model: nn.Module, levels: Sequence[int], clips: bool, has_factor: bool
) -> dict[str, Any]:
    """Describe how boxes and scores become detections, from the ``test_cfg`` of a detector.

    Args:
        model: Detector.
        levels: Numbers of priors from which NMS takes its candidates apart.
        clips: Whether boxes are cut off at the border of the image.
        has_factor: Whether scores are multiplied by objectness or centerness.

    Raises:
        ValueError: If it asks for another NMS than ``nms``.
    """
    cfg = model.bbox_head.test_cfg
    nms = dict(cfg.get('nms') or {})
    if nms.get('type', 'nms') != 'nms':
        raise ValueError(f'export: test_cfg asks for {nms["type"]}; the runtime knows nms alone')
    threshold = float(cfg.get('score_thr', 0.0))
    if has_factor:
        # Thresholds of MMDetection hold before scores are multiplied by objectness or centerness.
        threshold *= float(cfg.get('conf_thr', threshold))
    return dict(
        score_thr=threshold,
        nms_iou=float(nms.get('iou_threshold', 0.5)),
        nms_class_agnostic=bool(nms.get('class_agnostic', False)),
        nms_pre=int(cfg.get('nms_pre', -1)),
        max_per_img=int(cfg.get('max_per_img', 100)),
        min_bbox_size=float(cfg.get('min_bbox_size', -1)),
        levels=list(levels),
        clip=clips,
    )


def describe(
    classes: Sequence[str],
    input: dict[str, Any],  # noqa: A002  its name in the file
    output: dict[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """Put the parts together, as they stand in the file under the key ``hoyer_det``."""
    return dict(
        format=FORMAT, suite=__version__, classes=list(classes), input=input, output=output, **more
    )


def _pad(preprocessor: nn.Module) -> int:
    """Return the pixel value that stands for the 0 with which normalised images are padded."""
    value = getattr(preprocessor, 'pad_value', 0)
    if not getattr(preprocessor, '_enable_normalize', False):
        return int(value)
    if value != 0:
        raise ValueError(
            f'export: the data_preprocessor has pad_value={value}; where it normalises images, the runtime '
            'pads them with 0 alone'
        )
    return round(float(preprocessor.mean.mean()))
