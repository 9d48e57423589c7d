"""The stand-in for mmcv's compiled operators, seen through mmcv."""

import importlib.util
import inspect
import math
import os
import subprocess
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hoyer_det import compat
from hoyer_det.compat import operators
from mmcv import ops
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from mmengine.utils.dl_utils import mmcv_full_available
from torch import Tensor, nn
from torch.autograd import gradcheck

standin_only = pytest.mark.skipif(
    not isinstance(mmcv._ext, operators.TorchvisionExt), reason='a compiled mmcv is installed'
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------
# The module that stands in for mmcv._ext
# ------------------------------------------------------------------------------------------------


@standin_only
def test_stand_in_looks_like_a_module():
    ext = sys.modules['mmcv._ext']
    assert mmcv._ext is ext
    assert importlib.util.find_spec('mmcv._ext').name == 'mmcv._ext'
    assert not hasattr(ext, '__file__') and not hasattr(ext, '__wrapped__')
    assert inspect.getdoc(ext)
    assert not mmcv_full_available()


@standin_only
def test_apply_again_changes_nothing():
    ext = sys.modules['mmcv._ext']
    compat.apply()
    assert sys.modules['mmcv._ext'] is ext


@standin_only
def test_missing_op_says_so_when_called():
    rois = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
    with pytest.raises(NotImplementedError, match=r"'roi_pool_forward'.*compiled mmcv \(>=2\.0\.0"):
        ops.roi_pool(torch.rand(1, 1, 8, 8), rois, 2)
    with pytest.raises(NotImplementedError, match='pool_mode'):
        ops.RoIAlign(2, pool_mode='max')(torch.rand(1, 1, 8, 8), rois)


def test_missing_mmcv_is_one_line(monkeypatch):
    monkeypatch.setattr(operators.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(
        ImportError, match='^mmcv is not installed: pip install "mmcv-lite==2.1.0"$'
    ):
        compat.apply()


def test_import_steps_aside_for_a_compiled_mmcv_and_leaves_inference_alone(tmp_path):
    (tmp_path / '_ext.py').write_text(
        'def nms(*args, **kwargs):\n'
        '    raise RuntimeError("compiled nms")\n'
        'def __getattr__(name):\n'
        '    if name.startswith("__"):\n'
        '        raise AttributeError(name)\n'
        '    return nms\n'
    )
    script = f"""
import mmcv, sys, torch
mmcv.__path__.append({str(tmp_path)!r})
import hoyer_det
print({{'hoyer_det.inference', 'mmdet.apis'}} & set(sys.modules))
assert mmcv._ext.__file__ == {str(tmp_path / '_ext.py')!r}
from mmcv.ops import nms
try:
    nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except RuntimeError as error:
    print(error)
"""
    package_root = Path(compat.__file__).parents[2]
    env = {**os.environ, 'PYTHONPATH': str(package_root)}
    result = subprocess.run(
        [sys.executable, '-c', script], env=env, capture_output=True, text=True, check=False
    )
    assert result.stdout == 'set()\ncompiled nms\n', result.stderr


# ------------------------------------------------------------------------------------------------
# NMS
# ------------------------------------------------------------------------------------------------

# The second box covers 60 of the first one's 100 px, the third touches neither.
BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [20, 20, 30, 30]])
SCORES = torch.tensor([0.9, 0.8, 0.7])


def test_nms_by_hand():
    dets, keep = ops.nms(BOXES, SCORES, 0.5)
    assert keep.tolist() == [0, 2]
    assert torch.equal(dets, torch.cat([BOXES, SCORES[:, None]], 1)[[0, 2]])
    assert ops.nms(BOXES, SCORES, 0.65)[1].tolist() == [0, 1, 2]
    assert ops.nms(BOXES, SCORES, 0.65, score_threshold=0.75)[1].tolist() == [0, 1]
    assert ops.nms(BOXES, SCORES, 0.65, max_num=1)[1].tolist() == [0]
    assert ops.nms(BOXES[:0], SCORES[:0], 0.5)[1].tolist() == []


def test_nms_offset_counts_the_last_pixel():
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 4]])  # IoU 36/81, or 50/100 with the offset
    assert ops.nms(boxes, SCORES[:2], 0.47)[1].tolist() == [0, 1]
    assert ops.nms(boxes, SCORES[:2], 0.47, offset=1)[1].tolist() == [0]


def naive_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in np.argsort(-scores):
        for j in kept:
            width = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
            height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
            inter = max(width, 0) * max(height, 0)
            areas = [np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (i, j)]
            if inter / (sum(areas) - inter) > threshold:
                break
        else:
            kept.append(int(i))
    return kept


@pytest.mark.parametrize('threshold', [0.3, 0.7])
def test_nms_against_naive_loop(threshold):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 40, (80, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 30, (80, 2))], 1).astype(np.float32)
    scores = rng.permutation(80).astype(np.float32)
    expected = naive_nms(boxes, scores, threshold)
    assert 3 < len(expected) < 77
    assert ops.nms(boxes, scores, threshold)[1].tolist() == expected


def test_nms_takes_half_precision_scores():
    assert ops.nms(BOXES, SCORES.half(), 0.5)[1].tolist() == [0, 2]


@pytest.mark.parametrize(
    ('method', 'order', 'scores'),
    [
        ('naive', [0, 2], [0.9, 0.7]),
        ('linear', [0, 2, 1], [0.9, 0.7, 0.8 * 0.4]),
        ('gaussian', [0, 2, 1], [0.9, 0.7, 0.8 * math.exp(-0.36 / 0.5)]),
    ],
)
def test_soft_nms_by_hand(method, order, scores):
    dets, keep = ops.soft_nms(BOXES, SCORES, iou_threshold=0.3, sigma=0.5, method=method)
    assert keep.tolist() == order
    assert torch.equal(dets[:, :4], BOXES[order])
    assert dets[:, 4].tolist() == pytest.approx(scores, rel=1e-6)


def test_soft_nms_drops_what_falls_below_min_score():
    _, keep = ops.soft_nms(BOXES, SCORES, iou_threshold=0.3, min_score=0.33, method='linear')
    assert keep.tolist() == [0, 2]
    _, keep = ops.soft_nms(BOXES, SCORES, iou_threshold=0.61, min_score=0.33, method='linear')
    assert keep.tolist() == [0, 1, 2]


# ------------------------------------------------------------------------------------------------
# RoIAlign
# ------------------------------------------------------------------------------------------------


def roi_align_by_grid_sample(
    features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int, shift: float
) -> Tensor:
    """Sample ``ratio`` by ``ratio`` points per bin with another bilinear sampler, then average."""
    height, width = features.shape[-2:]
    outputs = []
    for index, x1, y1, x2, y2 in rois.tolist():
        samples = [
            start * scale
            - shift
            + (torch.arange(n * ratio).double() + 0.5) * (end - start) * scale / n / ratio
            for start, end, n in ((y1, y2, size[0]), (x1, x2, size[1]))
        ]
        # grid_sample puts pixel centres at (i + 0.5) * 2 / n - 1.
        y, x = ((s + 0.5) * 2 / n - 1 for s, n in zip(samples, (height, width), strict=True))
        grid = torch.stack(torch.meshgrid(x, y, indexing='xy'), -1)[None].to(features.dtype)
        sampled = F.grid_sample(features[int(index)][None], grid, align_corners=False)
        outputs.append(F.avg_pool2d(sampled, ratio))
    return torch.cat(outputs)


@pytest.mark.parametrize(('aligned', 'shift'), [(True, 0.5), (False, 0.0)])
def test_roi_align_and_its_gradient(aligned, shift):
    features = rand(2, 3, 9, 12).requires_grad_()
    # Inside the image by more than a pixel, where the two samplers' borders do not matter.
    rois = torch.tensor([[0.0, 4, 5, 20, 14], [1, 3, 3, 11, 15], [1, 6, 4, 18, 9]]).double()
    output = ops.RoIAlign((2, 3), 0.5, sampling_ratio=2, aligned=aligned)(features, rois)
    expected = roi_align_by_grid_sample(features, rois, (2, 3), 0.5, 2, shift)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-7)
    weight = rand(*output.shape)
    (grad,) = torch.autograd.grad((output * weight).sum(), features)
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), features)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-7)


def test_roi_align_under_autocast_keeps_dtypes():
    features = torch.rand(1, 2, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    rois = torch.tensor([[0.0, 1, 1, 6, 6]])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = ops.RoIAlign(2)(features, rois)
        output.sum().backward()
    assert output.dtype == features.grad.dtype == torch.bfloat16
    # Averaging hands out every output's gradient in parts that sum to one: 2 channels, 4 bins.
    assert features.grad.float().sum().item() == pytest.approx(8, rel=0.02)


# ------------------------------------------------------------------------------------------------
# Deformable convolution and attention
# ------------------------------------------------------------------------------------------------


def test_deform_conv_without_offset_is_a_convolution():
    x, weight = rand(2, 4, 7, 9).requires_grad_(), rand(6, 2, 3, 2).requires_grad_()
    geometry = {'stride': (2, 1), 'padding': (1, 0), 'dilation': (1, 2), 'groups': 2}
    expected = F.conv2d(x, weight, **geometry)
    offset = torch.zeros(2, 2 * 3 * 2, *expected.shape[-2:], dtype=x.dtype)
    output = ops.deform_conv2d(x, offset, weight, *geometry.values())
    torch.testing.assert_close(output, expected)
    grad = rand(*output.shape)
    torch.testing.assert_close(
        torch.autograd.grad(output, (x, weight), grad),
        torch.autograd.grad(expected, (x, weight), grad),
    )


def test_deform_conv_offsets_are_y_then_x():
    x, weight = rand(1, 1, 6, 6), rand(1, 1, 1, 1)
    offset = torch.zeros(1, 2, 6, 6, dtype=x.dtype)
    offset[:, 0] = 2  # read two rows further down
    output = ops.deform_conv2d(x, offset, weight)
    torch.testing.assert_close(output[:, :, :4], x[:, :, 2:] * weight)
    assert not output[:, :, 4:].any()


def test_deform_conv_gradients():
    # Offsets of a fraction, away from the kinks of bilinear interpolation.
    offset = (torch.rand(1, 2 * 2 * 4, 3, 4, dtype=torch.float64) * 0.4 + 0.3).requires_grad_()
    x, weight = rand(1, 4, 4, 5).requires_grad_(), rand(2, 2, 2, 2).requires_grad_()

    def function(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        return ops.deform_conv2d(x, offset, weight, 1, 0, 1, 2, 2)

    assert gradcheck(function, (x, offset, weight))


def test_modulated_deform_conv_scales_by_its_mask():
    layer = ops.ModulatedDeformConv2d(4, 6, 3, padding=1, groups=2, bias=True).double()
    nn.init.normal_(layer.bias)
    x = rand(2, 4, 5, 6)
    offset = torch.zeros(2, 18, 5, 6, dtype=x.dtype)
    output = layer(x, offset, torch.full((2, 9, 5, 6), 0.25, dtype=x.dtype))
    plain = F.conv2d(x, layer.weight, padding=1, groups=2)
    torch.testing.assert_close(output, 0.25 * plain + layer.bias[:, None, None])


@pytest.mark.parametrize('with_bias', [True, False])
def test_modulated_deform_conv_gradients(with_bias):
    offset = torch.rand(1, 8, 3, 4, dtype=torch.float64) * 0.4 + 0.3
    mask = torch.rand(1, 4, 3, 4, dtype=torch.float64)
    inputs = [rand(1, 2, 4, 5), offset, mask, rand(2, 2, 2, 2)] + [rand(2)] * with_bias
    assert gradcheck(ops.modulated_deform_conv2d, [x.requires_grad_() for x in inputs])


def test_multi_scale_deformable_attention():
    shapes = torch.tensor([[2, 3], [1, 2]])
    value = rand(1, 8, 1, 2)
    start = torch.tensor([0, 6])
    # One query: the centre of pixel (row 1, column 2) on level 0, of (0, 1) on level 1.
    where = torch.tensor([[5 / 6, 3 / 4], [3 / 4, 1 / 2]]).double().view(1, 1, 1, 2, 1, 2)
    weights = torch.tensor([0.25, 0.75]).double().view(1, 1, 1, 2, 1)
    output = MultiScaleDeformableAttnFunction.apply(value, shapes, start, where, weights, 64)
    expected = 0.25 * value[0, 1 * 3 + 2, 0] + 0.75 * value[0, 6 + 1, 0]
    torch.testing.assert_close(output[0, 0], expected, rtol=0, atol=1e-6)

    where = where + 0.07  # off the centres, where the interpolation has a kink

    def function(value: Tensor, where: Tensor, weights: Tensor) -> Tensor:
        return MultiScaleDeformableAttnFunction.apply(value, shapes, start, where, weights, 64)

    assert gradcheck(function, [x.requires_grad_() for x in (value, where, weights)])


# ------------------------------------------------------------------------------------------------
# Focal loss
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('gamma', [0.0, 1.5, 2.0])
def test_sigmoid_focal_loss_and_its_gradient(gamma):
    alpha = 0.25
    logits = np.array([[0.3, -2.0, 5.0], [-0.7, 1.1, 0.0], [9.0, -9.0, 0.5]])
    labels = np.array([1, 0, 3])  # 3 classes, so the last row is background
    positive = labels[:, None] == np.arange(3)
    p = 1 / (1 + np.exp(-logits))
    expected = np.where(
        positive,
        -alpha * (1 - p) ** gamma * np.log(p),
        -(1 - alpha) * p**gamma * np.log(1 - p),
    )
    expected_grad = np.where(
        positive,
        alpha * (1 - p) ** gamma * (gamma * p * np.log(p) + p - 1),
        -(1 - alpha) * p**gamma * (gamma * (1 - p) * np.log(1 - p) - p),
    )
    x = torch.tensor(logits, requires_grad=True)
    loss = ops.sigmoid_focal_loss(x, torch.from_numpy(labels), gamma, alpha, None, 'none')
    (grad,) = torch.autograd.grad(loss.sum(), x)
    np.testing.assert_allclose(loss.detach(), expected, rtol=1e-9)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-9)


def test_sigmoid_focal_loss_class_weight_and_mean():
    x, labels = torch.zeros(2, 2, requires_grad=True), torch.tensor([0, 1])
    loss = ops.sigmoid_focal_loss(x, labels, 2.0, 0.5, torch.tensor([1.0, 3.0]), 'mean')
    loss.backward()
    # At p = 0.5 every entry is 0.5 * 0.25 * ln 2; rows weigh 1 and 3, two entries each, two rows.
    assert loss.item() == pytest.approx(0.125 * math.log(2) * 2 * (1 + 3) / 2, rel=1e-6)
    assert (x.grad[1] / x.grad[0].flip(0)).tolist() == pytest.approx([3, 3])


def test_sigmoid_focal_loss_stays_finite():
    x = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(x, torch.tensor([1]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(x.grad).all()
