"""The few places where the pinned OpenMMLab packages need help, each with its reason.

Call :func:`apply` once, before anything imports ``mmdet.models``. Four things are mended, and
nothing else is changed:

1. mmcv-lite has no compiled ``mmcv._ext``, and mmdet imports it. A stand-in on
   ``torchvision.ops`` serves the common ops on CPU and CUDA; the others say so when called.
2. ``SSDHead`` of mmdet 3.3.0 has no ``loss_cls`` but reads it when predicting.
3. From torch 2.6 on, ``torch.load`` refuses checkpoints of mmengine 0.10.7.
4. mmengine 0.10.7 imports ``pkg_resources`` for every ``mmdet::`` base, and setuptools 80 warns of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import torch
import torchvision.ops as tv_ops
from torch import Tensor

EXT_NAME = 'mmcv._ext'


def apply() -> None:
    """Mend the pinned packages; calling it again changes nothing.

    Raises:
        ImportError: If mmcv is not installed.
    """
    _provide_mmcv_ext()
    _mend_ssd_head()
    _trust_mmengine_checkpoints()
    # Five lines at every config on an `mmdet::` base; setup.cfg pins setuptools below the removal.
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated', category=UserWarning)


# ------------------------------------------------------------------------------------------------
# 1. A stand-in for `mmcv._ext`
# ------------------------------------------------------------------------------------------------


class TorchvisionExt(ModuleType):
    """Module that answers for ``mmcv._ext`` with ops built on torchvision.

    Every op name exists, because mmcv checks all of them when it is imported. Dunder names do not:
    the import system and ``inspect`` probe for them and would take a function for an answer.
    """

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        """Return a function that reports the op ``name`` as missing when it is called."""
        if name.startswith('__'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')

        def missing_op(*args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(
                f"mmcv op '{name}' is not among those served through torchvision: "
                'install a compiled mmcv (>=2.0.0,<2.2.0) instead of mmcv-lite'
            )

        return missing_op


def _provide_mmcv_ext() -> None:
    """Put the stand-in where mmcv looks for its ops, unless a compiled one is there."""
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError('mmcv is not installed: pip install "mmcv-lite==2.1.0"')
    if EXT_NAME in sys.modules or importlib.util.find_spec(EXT_NAME) is not None:
        return
    ext = TorchvisionExt(EXT_NAME, 'mmcv ops on top of torchvision.ops')
    # No loader on purpose: mmengine then still reports mmcv as the one without compiled ops, and
    # leaves mmcv's own SyncBatchNorm alone.
    ext.__spec__ = ModuleSpec(EXT_NAME, loader=None)
    for op in OPS:
        setattr(ext, op.__name__, op)
    sys.modules[EXT_NAME] = ext
    importlib.import_module('mmcv')._ext = ext


def _widen(x: Tensor) -> Tensor:
    """Return half-precision tensors as float32, others as they are.

    torchvision's kernels do not take half precision on every device, nor two dtypes at once.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _backward(
    function: Callable[..., Tensor], inputs: list[Tensor], grad_output: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of ``function(*inputs)`` for ``grad_output``, one per input.

    mmcv calls backward ops by hand, outside of autograd, so the forward is run once more here.
    Autocast is off, as it may still be on from the caller and would change the dtypes.
    """
    with torch.enable_grad(), torch.autocast(grad_output.device.type, enabled=False):
        leaves = [_widen(x.detach()).requires_grad_() for x in inputs]
        output = function(*leaves)
        return torch.autograd.grad(output, leaves, grad_output.to(output.dtype))


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels.
        scores: (N,).
        iou_threshold: A box goes if its overlap with a kept one is larger than this.
        offset: 1 if x2 and y2 are the last pixel inside the box, else 0.

    Returns:
        Indices of the kept boxes, (K,), by falling score.
    """
    boxes = _widen(boxes)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return tv_ops.nms(boxes, _widen(scores), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS: overlapping boxes lose score instead of being dropped.

    https://arxiv.org/abs/1704.04503

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels, on the CPU.
        scores: (N,).
        dets: (N, 5), its first K rows are filled with boxes and their new scores.
        iou_threshold: Overlap from which methods 0 and 1 act.
        sigma: Width of method 2.
        min_score: Boxes whose score falls below are dropped.
        method: 0 drops overlapping boxes, 1 weights by 1 - IoU, 2 by exp(-IoU^2 / sigma).
        offset: 1 if x2 and y2 are the last pixel inside the box, else 0.

    Returns:
        Indices of the kept boxes, (K,), by falling new score.
    """
    corners = boxes + boxes.new_tensor([0, 0, offset, offset])
    scores = scores.clone()
    remaining = torch.arange(len(boxes))
    kept: list[int] = []
    while len(remaining):
        best = remaining[scores[remaining].argmax()]
        dets[len(kept), :4] = boxes[best]
        dets[len(kept), 4] = scores[best]
        kept.append(int(best))
        remaining = remaining[remaining != best]
        iou = tv_ops.box_iou(corners[best, None], corners[remaining])[0]
        if method == 0:
            weight = (iou < iou_threshold).to(scores.dtype)
        elif method == 1:
            weight = torch.where(iou < iou_threshold, 1.0, 1.0 - iou)
        else:
            weight = torch.exp(-(iou**2) / sigma)
        scores[remaining] *= weight
        remaining = remaining[scores[remaining] >= min_score]
    return torch.tensor(kept, dtype=torch.long)


def _roi_align(
    features: Tensor,
    rois: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> Tensor:
    """Call torchvision's RoIAlign with mmcv's arguments."""
    if pool_mode != 1:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' is not in torchvision: "
            "use pool_mode='avg' or install a compiled mmcv (>=2.0.0,<2.2.0)"
        )
    size = (aligned_height, aligned_width)
    return tv_ops.roi_align(
        features, rois.to(features.dtype), size, spatial_scale, sampling_ratio, aligned
    )


def roi_align_forward(
    features: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **cfg: Any
) -> None:
    """Fill ``output`` (K, C, h, w) from ``features`` (N, C, H, W) and ``rois`` (K, 5)."""
    output.copy_(_roi_align(_widen(features), rois, **cfg))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    **cfg: Any,
) -> None:
    """Fill ``grad_input`` (N, C, H, W); average pooling is linear, so its values do not matter."""
    (grad,) = _backward(lambda x: _roi_align(x, rois, **cfg), [grad_input], grad_output)
    grad_input.copy_(grad)


def _deform_conv(cfg: dict[str, Any]) -> Callable[..., Tensor]:
    """Return (input, offset, weight) -> output for the geometry that mmcv passes."""

    def function(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        # torchvision reads the two kinds of groups off the shapes of weight and offset.
        return tv_ops.deform_conv2d(
            x,
            offset,
            weight,
            stride=(cfg['dH'], cfg['dW']),
            padding=(cfg['padH'], cfg['padW']),
            dilation=(cfg['dilationH'], cfg['dilationW']),
        )

    return function


def deform_conv_forward(
    x: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **cfg
) -> None:
    """Fill ``output`` with the deformable convolution of ``x`` (DCN v1)."""
    output.copy_(_deform_conv(cfg)(_widen(x), _widen(offset), _widen(weight)))


def deform_conv_backward_input(
    x: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **cfg,
) -> None:
    """Fill the gradients of input and offset."""

    def function(x: Tensor, offset: Tensor) -> Tensor:
        return _deform_conv(cfg)(x, offset, _widen(weight))

    for target, grad in zip(
        (grad_input, grad_offset), _backward(function, [x, offset], grad_output), strict=True
    ):
        target.copy_(grad)


def deform_conv_backward_parameters(
    x: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    **cfg,
) -> None:
    """Add the gradient of the weight, times ``scale``, to ``grad_weight``."""

    def function(weight: Tensor) -> Tensor:
        return _deform_conv(cfg)(_widen(x), _widen(offset), weight)

    # The weight itself does not matter to its own gradient, only its shape does.
    (grad,) = _backward(function, [grad_weight], grad_output)
    grad_weight.add_(grad, alpha=cfg['scale'])


def _modulated_deform_conv(cfg: dict[str, Any]) -> Callable[..., Tensor]:
    """Return (input, weight, bias, offset, mask) -> output for the geometry mmcv passes."""

    def function(x: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        output = tv_ops.deform_conv2d(
            x,
            offset,
            weight,
            stride=(cfg['stride_h'], cfg['stride_w']),
            padding=(cfg['pad_h'], cfg['pad_w']),
            dilation=(cfg['dilation_h'], cfg['dilation_w']),
            mask=mask,
        )
        # Without a bias mmcv passes an empty tensor; the sum keeps it in the graph either way.
        return output + (bias[:, None, None] if cfg['with_bias'] else bias.sum())

    return function


def modulated_deform_conv_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    **cfg,
) -> None:
    """Fill ``output`` with the modulated deformable convolution of ``x`` (DCN v2)."""
    inputs = (_widen(t) for t in (x, weight, bias, offset, mask))
    output.copy_(_modulated_deform_conv(cfg)(*inputs))


def modulated_deform_conv_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    **cfg,
) -> None:
    """Fill the gradients of input, weight, bias, offset and mask."""
    targets = (grad_input, grad_weight, grad_bias, grad_offset, grad_mask)
    grads = _backward(_modulated_deform_conv(cfg), [x, weight, bias, offset, mask], grad_output)
    for target, grad in zip(targets, grads, strict=True):
        target.copy_(grad)


def _sigmoid_focal_loss(
    x: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    """Return the focal loss per entry, (N, C), from logits (N, C) and class indices (N,)."""
    # A comparison, not one_hot: background has index C, which matches no column.
    one_hot = (target[:, None] == torch.arange(x.size(1), device=x.device)).to(x.dtype)
    loss = tv_ops.sigmoid_focal_loss(x, one_hot, alpha=alpha, gamma=gamma)
    return loss * weight[target, None] if weight.numel() else loss


def sigmoid_focal_loss_forward(
    x: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N, C) with the focal loss of every entry."""
    output.copy_(_sigmoid_focal_loss(_widen(x), target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    x: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` (N, C) with the derivative of every entry by its own logit."""

    def function(x: Tensor) -> Tensor:
        return _sigmoid_focal_loss(x, target, weight, gamma, alpha)

    (grad,) = _backward(function, [x], torch.ones_like(x))
    grad_input.copy_(grad)


def _ms_deform_attn(spatial_shapes: Tensor) -> Callable[..., Tensor]:
    """Return (value, locations, weights) -> output, by the PyTorch version that mmcv brings."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    # Sizes as plain numbers: one transfer from the GPU instead of one per level and use.
    shapes = spatial_shapes.tolist()

    def function(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)

    return function


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Return multi-scale deformable attention, (N, queries, channels)."""
    output = _ms_deform_attn(spatial_shapes)(value, sampling_locations, attention_weights)
    return output.to(value.dtype)  # autocast makes grid_sample answer in float32


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Fill the gradients of value, sampling locations and attention weights."""
    inputs = [value, sampling_locations, attention_weights]
    grads = _backward(_ms_deform_attn(spatial_shapes), inputs, grad_output)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)


def get_compiler_version() -> str:
    """Tell mmcv's environment report that its ops were not compiled."""
    return 'n/a (ops by torchvision)'


def get_compiling_cuda_version() -> str:
    """Tell mmcv's environment report that its ops were not compiled."""
    return 'n/a (ops by torchvision)'


# Left to a compiled mmcv, among others: roi_pool, because torchvision's rounds box corners
# differently and would give other numbers under the same name.
OPS: tuple[Callable[..., Any], ...] = (
    nms,
    softnms,
    roi_align_forward,
    roi_align_backward,
    deform_conv_forward,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    ms_deform_attn_forward,
    ms_deform_attn_backward,
    get_compiler_version,
    get_compiling_cuda_version,
)


# ------------------------------------------------------------------------------------------------
# 2. SSDHead
# ------------------------------------------------------------------------------------------------


def _mend_ssd_head() -> None:
    """Give ``SSDHead`` the ``loss_cls`` that mmdet 3.3.0 reads in ``predict``.

    https://github.com/open-mmlab/mmdetection/issues/11063
    """
    from mmdet.models.dense_heads import SSDHead

    # A class attribute hides a submodule of that name, so this holds for SSDHead only because its
    # losses are functions; neither it nor PISASSDHead ever sets a `loss_cls`.
    if not hasattr(SSDHead, 'loss_cls'):
        SSDHead.loss_cls = None


# ------------------------------------------------------------------------------------------------
# 3. Checkpoints
# ------------------------------------------------------------------------------------------------


def _getattr_of_history_buffer(owner: Any, name: str) -> Any:
    """Stand in for ``getattr`` in checkpoints, for ``HistoryBuffer``'s statistics alone.

    A ``HistoryBuffer`` is pickled with its statistics methods, each as a call of ``getattr``.
    Allowing ``getattr`` itself would open more than is needed.
    """
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'checkpoint asks for attribute {name!r} of {owner!r}: refused')


def _trust_mmengine_checkpoints() -> None:
    """Let weights-only loading read what mmengine puts beside the weights.

    These are training logs (``HistoryBuffer``, NumPy arrays) and metrics (NumPy scalars). The
    protection stays on for everything else.
    """
    if torch.__version__ < (2, 6):  # weights-only loading is not yet the default
        return
    from mmengine.logging import HistoryBuffer

    numpy_core = np._core if hasattr(np, '_core') else np.core
    safe: list[Any] = [
        HistoryBuffer,
        (_getattr_of_history_buffer, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
    ]
    # NumPy 2 renamed numpy.core; files written under either name must load under both.
    for package in ('numpy.core', 'numpy._core'):
        safe += [
            (numpy_core.multiarray._reconstruct, f'{package}.multiarray._reconstruct'),
            (numpy_core.multiarray.scalar, f'{package}.multiarray.scalar'),
        ]
    number_codes = '?' + np.typecodes['AllInteger'] + np.typecodes['AllFloat']
    safe += {type(np.dtype(code)) for code in number_codes}
    torch.serialization.add_safe_globals(safe)
