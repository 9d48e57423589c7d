"""Keeps ``mmcv.cnn.fuse_conv_bn`` from silently changing a network."""

import functools
import sys

import mmcv.cnn
from torch import nn

from .folding import check_conv_norm_fusion


def guard_mmcv_fusion() -> None:
    """Let ``mmcv.cnn.fuse_conv_bn`` refuse models that it would fuse wrongly.

    Of mmcv 2.1.0, which fuses across whatever stands between a convolution and the next norm. MMDetection
    holds that function by name in its benchmark tool. It finds itself by the name in its module for
    the parts of a model, so replacing it there reaches those who imported it before. Calling this
    again changes nothing.
    """
    module = sys.modules['mmcv.cnn.utils.fuse_conv_bn']
    original = module.fuse_conv_bn
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def fuse_conv_bn(module: nn.Module) -> nn.Module:
        check_conv_norm_fusion(module)
        return original(module)

    for place in (module, mmcv.cnn.utils, mmcv.cnn):
        place.fuse_conv_bn = fuse_conv_bn
