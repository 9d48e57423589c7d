"""A stand-in for ``mmcv._ext``, which mmcv-lite lacks and mmdet imports, on ``torchvision.ops``.

It serves the common operators on CPU and CUDA; the others say what to install when they are called.
It steps aside for a compiled mmcv, and every argument list below is that of mmcv 2.1.0's extension.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch
import torchvision.ops as tv_ops
from torch import Tensor

EXT_NAME = 'mmcv._ext'


class TorchvisionExt(ModuleType):
    """Module that answers for ``mmcv._ext``.

    Every operator's name exists, because mmcv checks all of them when it is imported. Dunder names
    do not: the import system and ``inspect`` probe for them and would take a function for an answer.
    """

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        """Return a function that reports the operator ``name`` as missing when it is called."""
        if name.startswith('__'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')

        def missing_op(*args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(
                f"mmcv op '{name}' is not among those served through torchvision: "
                'install a compiled mmcv (>=2.0.0,<2.2.0) instead of mmcv-lite'
            )

        return missing_op


def provide() -> None:
    """Put the stand-in where mmcv looks for its operators, unless compiled ones are there.

    Raises:
        ImportError: If mmcv is not installed.
    """
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


def _fill_gradients(
    targets: Sequence[Tensor],
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    grad_output: Tensor,
) -> None:
    """Write the gradients of ``function(*inputs)`` for ``grad_output`` into ``targets``.

    mmcv calls backward operators outside of autograd, so the forward is run once more here. Autocast
    is off, as it may still be on from the caller and would change the dtypes.
    """
    with torch.enable_grad(), torch.autocast(grad_output.device.type, enabled=False):
        leaves = [_widen(x.detach()).requires_grad_() for x in inputs]
        output = function(*leaves)
        grads = torch.autograd.grad(output, leaves, grad_output.to(output.dtype))
    for target, grad in zip(targets, grads, strict=True):
        target.copy_(grad)


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
    return tv_ops.nms(
        boxes + boxes.new_tensor([0, 0, offset, offset]), _widen(scores), iou_threshold
    )


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
    _fill_gradients([grad_input], lambda x: _roi_align(x, rois, **cfg), [grad_input], grad_output)


def _deform_conv(
    x: Tensor, offset: Tensor, weight: Tensor, cfg: dict[str, Any], mask: Tensor | None = None
) -> Tensor:
    """Call torchvision's deformable convolution with mmcv's arguments (v2 where there is a mask)."""
    # mmcv names the geometry of v1 and v2 differently. torchvision reads the two kinds of groups off
    # the shapes of weight and offset.
    names = (
        'dH dW padH padW dilationH dilationW',
        'stride_h stride_w pad_h pad_w dilation_h dilation_w',
    )
    geometry = [cfg[name] for name in names[mask is not None].split()]
    return tv_ops.deform_conv2d(
        x, offset, weight, None, geometry[0:2], geometry[2:4], geometry[4:6], mask
    )


def deform_conv_forward(
    x: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **cfg
) -> None:
    """Fill ``output`` with the deformable convolution of ``x`` (DCN v1)."""
    output.copy_(_deform_conv(_widen(x), _widen(offset), _widen(weight), cfg))


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
        return _deform_conv(x, offset, _widen(weight), cfg)

    _fill_gradients([grad_input, grad_offset], function, [x, offset], grad_output)


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
        return _deform_conv(_widen(x), _widen(offset), weight, cfg)

    # The weight itself does not matter to its own gradient, only its shape does.
    grad = torch.empty_like(grad_weight)
    _fill_gradients([grad], function, [grad_weight], grad_output)
    grad_weight.add_(grad, alpha=cfg['scale'])


def _modulated_deform_conv(cfg: dict[str, Any]) -> Callable[..., Tensor]:
    """Return (input, weight, bias, offset, mask) -> output for the geometry that mmcv passes."""

    def function(x: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        output = _deform_conv(x, offset, weight, cfg, mask)
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
    *grads: Tensor,
    **cfg,
) -> None:
    """Fill the gradients of input, weight, bias, offset and mask; the last is that of the output."""
    *targets, grad_output = grads
    inputs = (x, weight, bias, offset, mask)
    _fill_gradients(targets, _modulated_deform_conv(cfg), inputs, grad_output)


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

    _fill_gradients([grad_input], function, [x], torch.ones_like(x))


def _ms_deform_attn(spatial_shapes: Tensor) -> Callable[..., Tensor]:
    """Return (value, locations, weights) -> output, by the PyTorch version that mmcv brings."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    # Sizes as plain numbers: one transfer from the GPU instead of one per level and use.
    shapes = spatial_shapes.tolist()
    return lambda value, *where: multi_scale_deformable_attn_pytorch(value, shapes, *where)


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
    *grads: Tensor,
    im2col_step: int,
) -> None:
    """Fill the gradients of value, sampling locations and attention weights."""
    inputs = (value, sampling_locations, attention_weights)
    _fill_gradients(grads, _ms_deform_attn(spatial_shapes), inputs, grad_output)


def get_compiler_version() -> str:
    """Tell mmcv's environment report that its ops were not compiled."""
    return 'n/a (ops by torchvision)'


def get_compiling_cuda_version() -> str:
    """Tell mmcv's environment report that its ops were not compiled."""
    return get_compiler_version()


# Left to a compiled mmcv, among others: roi_pool, because torchvision's rounds box corners
# differently and would give other numbers under the same name.
OPS: tuple[Callable[..., Any], ...] = (
    *(nms, softnms, roi_align_forward, roi_align_backward),
    *(deform_conv_forward, deform_conv_backward_input, deform_conv_backward_parameters),
    *(modulated_deform_conv_forward, modulated_deform_conv_backward),
    *(sigmoid_focal_loss_forward, sigmoid_focal_loss_backward),
    *(ms_deform_attn_forward, ms_deform_attn_backward),
    *(get_compiler_version, get_compiling_cuda_version),
)
