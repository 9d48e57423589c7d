"""Tiny single-stage detectors with random weights that fire, for export."""

import torch
from hoyer_det.kernels import plain_kernels
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

CLASSES = ('cell', 'dot', 'ring')
SIDE = 64
_ACT = dict(type='HoyerSpike', extremum='channel')
_PREPROCESSOR = dict(
    type='DetDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
_TEST = dict(score_thr=0.02, nms=dict(type='nms', iou_threshold=0.5), max_per_img=30, nms_pre=50)
_VGG = dict(type='HoyerVGG', depth=11, width=1 / 16, act_cfg=_ACT, ceil_mode=True)
_RESNET = dict(
    type='HoyerResNet', depth=18, base_channels=4, num_stages=2, out_indices=(0, 1), act_cfg=_ACT
)
_FPN = dict(
    type='HoyerFPN',
    in_channels=[4, 8],
    out_channels=8,
    num_outs=3,
    add_extra_convs='on_output',
    act_cfg=_ACT,
)
_DELTAS = dict(type='DeltaXYWHBBoxCoder')

MODELS_BY_NAME = dict(
    ssd=dict(
        type='SingleStageDetector',
        backbone=dict(_VGG, ssd_tail=True),
        neck=dict(
            type='HoyerSSDNeck',
            in_channels=(32, 64),
            out_channels=(32, 64, 32),
            level_strides=(2,),
            level_paddings=(1,),
            act_cfg=_ACT,
        ),
        bbox_head=dict(
            type='SSDHead',
            in_channels=(32, 64, 32),
            num_classes=3,
            anchor_generator=dict(
                type='SSDAnchorGenerator',
                scale_major=False,
                input_size=SIDE,
                min_sizes=[10, 20, 40],
                max_sizes=[20, 40, 60],
                strides=[8, 16, 32],
                ratios=[[2], [2], [2]],
            ),
            bbox_coder=_DELTAS,
        ),
    ),
    yolo=dict(
        type='YOLOV3',
        backbone=dict(_VGG, out_indices=(2, 3)),
        neck=dict(
            type='HoyerYOLOV3Neck',
            num_scales=2,
            in_channels=[32, 16],
            out_channels=[16, 8],
            act_cfg=_ACT,
        ),
        bbox_head=dict(
            type='HoyerYOLOV3Head',
            num_classes=3,
            in_channels=[16, 8],
            out_channels=[16, 8],
            act_cfg=_ACT,
            anchor_generator=dict(
                type='YOLOAnchorGenerator',
                base_sizes=[[(20, 30)], [(8, 10)]],
                strides=[16, 8],
            ),
            featmap_strides=[16, 8],
        ),
    ),
    retinanet=dict(
        type='SpikingDetector',
        parts=['bbox_head'],
        act_cfg=_ACT,
        detector=dict(
            type='RetinaNet',
            data_preprocessor=_PREPROCESSOR,
            backbone=_RESNET,
            neck=_FPN,
            bbox_head=dict(
                type='RetinaSepBNHead',
                num_classes=3,
                num_ins=3,
                in_channels=8,
                stacked_convs=1,
                feat_channels=8,
                norm_cfg=dict(type='BN'),
                anchor_generator=dict(
                    type='AnchorGenerator',
                    octave_base_scale=4,
                    scales_per_octave=1,
                    ratios=[1.0],
                    strides=[4, 8, 16],
                ),
                bbox_coder=_DELTAS,
            ),
        ),
    ),
    fcos=dict(
        type='FCOS',
        backbone=_RESNET,
        neck=_FPN,
        bbox_head=dict(
            type='FCOSHead',
            num_classes=3,
            in_channels=8,
            stacked_convs=1,
            feat_channels=8,
            strides=[4, 8, 16],
            norm_cfg=dict(type='GN', num_groups=2),
        ),
    ),
    # MMDetection's backbone calls its norms itself, and computes a stage that nobody reads.
    atss=dict(
        type='SpikingDetector',
        parts=['backbone'],
        act_cfg=_ACT,
        detector=dict(
            type='ATSS',
            backbone=dict(
                type='ResNet',
                depth=18,
                num_stages=3,
                strides=(1, 2, 2),
                dilations=(1, 1, 1),
                base_channels=4,
                stem_channels=4,
                out_indices=(0, 1),
            ),
            neck=dict(type='FPN', in_channels=[4, 8], out_channels=8, num_outs=2),
            bbox_head=dict(
                type='ATSSHead',
                num_classes=3,
                in_channels=8,
                stacked_convs=1,
                feat_channels=8,
                norm_cfg=dict(type='GN', num_groups=2),
                anchor_generator=dict(
                    type='AnchorGenerator',
                    ratios=[1.0],
                    octave_base_scale=8,
                    scales_per_octave=1,
                    strides=[4, 8],
                ),
                bbox_coder=_DELTAS,
                loss_cls=dict(type='FocalLoss', use_sigmoid=True),
            ),
        ),
    ),
)
# Thresholds and numbers that hold before the product with objectness or centerness, and leave out nothing.
_TESTS = dict(
    yolo=dict(_TEST, conf_thr=0.005, nms_pre=1000),
    fcos=dict(_TEST, nms_pre=1000),
    atss=dict(_TEST, score_thr=0.2, max_per_img=1000, nms_pre=1000),
)


def tiny_config(name: str, keep_ratio: bool = False) -> Config:
    """The config of one of the detectors, with a test pipeline."""
    model = dict(MODELS_BY_NAME[name])
    inner = model.get('detector', model)
    inner['data_preprocessor'] = _PREPROCESSOR
    inner['test_cfg'] = dict(_TESTS.get(name, _TEST))
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(SIDE, SIDE), keep_ratio=keep_ratio),
        dict(type='PackDetInputs'),
    ]
    return Config(
        dict(model=model, test_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=pipeline)))
    )


def _draw_weights(model: nn.Module) -> None:
    """Draw random weights, with norms of both signs that take over the next batch's statistics."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, (2 / module.weight[0].numel()) ** 0.5)
        elif isinstance(module, _BatchNorm):
            nn.init.normal_(module.weight)
            nn.init.uniform_(module.bias, -0.3, 0.6)
            module.momentum = 1.0


def tiny_detector(cfg: Config, seed: int = 0) -> nn.Module:
    """The detector of a config, with norms of both signs and neurons that fire."""
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    _draw_weights(model)
    with torch.no_grad(), plain_kernels(model):
        model.train()
        model.bbox_head(model.extract_feat(torch.randn(2, 3, SIDE, SIDE)))
    model.dataset_meta = dict(classes=CLASSES)
    return model.eval()


def shaken(model: nn.Module, side: int = 64) -> nn.Module:
    """Return a model of random weights whose norms know their statistics, in evaluation mode."""
    torch.manual_seed(0)
    _draw_weights(model)
    with torch.no_grad():
        model.train()
        model(torch.randn(2, 3, side, side))
    model.eval()
    return model
