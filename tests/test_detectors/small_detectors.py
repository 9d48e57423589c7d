"""MMDetection's shipped configs with narrow networks, and a batch of random images."""

from pathlib import Path
from typing import Any

import hoyer_det  # noqa: F401
import mmdet
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from narrow import random_items
from torch import nn

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
SIDE = 96

_RESNET = {
    'backbone.init_cfg': None,
    'backbone.base_channels': 8,
    'backbone.frozen_stages': -1,
    'backbone.norm_cfg.requires_grad': True,
}
_R50 = {**_RESNET, 'neck.in_channels': [32, 64, 128, 256], 'neck.out_channels': 16}
_DETR = {
    **_RESNET,
    'backbone.depth': 18,
    'encoder.num_layers': 1,
    'decoder.num_layers': 1,
    'num_queries': 10,
    'test_cfg.max_per_img': 10,
    'bbox_head.num_classes': 3,
}
_DARK = {'backbone.widen_factor': 0.125, 'neck.out_channels': 16, 'bbox_head.num_classes': 3}
_DARK |= {'bbox_head.in_channels': 16, 'bbox_head.feat_channels': 16}

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    'retinanet': (
        'retinanet/retinanet_r18_fpn_1x_coco.py',
        {
            **_RESNET,
            'neck.in_channels': [8, 16, 32, 64],
            'neck.out_channels': 16,
            'bbox_head.in_channels': 16,
            'bbox_head.feat_channels': 16,
        },
    ),
    'faster_rcnn': (
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        {
            **_R50,
            'rpn_head.in_channels': 16,
            'rpn_head.feat_channels': 16,
            'roi_head.bbox_roi_extractor.out_channels': 16,
            'roi_head.bbox_head.in_channels': 16,
            'roi_head.bbox_head.fc_out_channels': 32,
        },
    ),
    'fcos': (
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        {
            **_R50,
            'neck.out_channels': 32,
            'bbox_head.in_channels': 32,
            'bbox_head.feat_channels': 32,
        },
    ),
    'vfnet': (
        'vfnet/vfnet_r50_fpn_1x_coco.py',
        {
            **_RESNET,
            'backbone.depth': 18,
            'neck.in_channels': [8, 16, 32, 64],
            'neck.out_channels': 32,
            'bbox_head.in_channels': 32,
            'bbox_head.feat_channels': 32,
        },
    ),
    'yolox': (
        'yolox/yolox_tiny_8xb8-300e_coco.py',
        {**_DARK, 'neck.in_channels': [32, 64, 128]},
    ),
    'rtmdet': (
        'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
        {**_DARK, 'backbone.init_cfg': None, 'neck.in_channels': [32, 64, 128]},
    ),
    'ssdlite': ('ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py', {}),
    'detr': ('detr/detr_r50_8xb2-150e_coco.py', {**_DETR, 'neck.in_channels': [64]}),
    'deformable_detr': (
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        {**_DETR, 'neck.in_channels': [16, 32, 64]},
    ),
}


def small_config(name: str) -> ConfigDict:
    """The model of a shipped config, made narrow."""
    file, options = SMALL[name]
    cfg = Config.fromfile(CONFIGS / file)
    cfg.merge_from_dict({f'model.{key}': value for key, value in options.items()})
    # Kept at the top of the config by some; the Runner hands it down.
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    cfg.model.data_preprocessor.pop('batch_augments', None)
    return cfg.model


def build_spiking(name: str, **options: Any) -> nn.Module:
    """A narrow detector with spiking activations, always with the same weights."""
    torch.manual_seed(0)
    model = MODELS.build(dict(type='SpikingDetector', detector=small_config(name), **options))
    model.init_weights()
    return model


def batch(model: nn.Module, training: bool = True) -> dict[str, Any]:
    """Two random images through the preprocessor of a model."""
    return model.data_preprocessor(pseudo_collate(random_items(2, SIDE)), training)
