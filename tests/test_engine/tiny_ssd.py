"""A spiking SSD of a few thousand weights, random images for it, and a Runner around both."""

import itertools
from pathlib import Path
from typing import Any

import hoyer_det  # noqa: F401
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from narrow import random_items
from torch import nn
from torch.utils.data import DataLoader

SIDE = 64
_names = itertools.count()


def build_ssd(act: str = 'HoyerSpike', norm: str | None = 'BN', **backbone: Any) -> nn.Module:
    """A detector with three feature levels and two classes, always with the same weights."""
    init_default_scope('mmdet')
    act_cfg = dict(type=act)
    channels = (32, 64, 32)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='SingleStageDetector',
            data_preprocessor=dict(
                type='DetDataPreprocessor', mean=[127.5] * 3, std=[64.0] * 3, pad_size_divisor=1
            ),
            backbone=dict(
                type='HoyerVGG',
                depth=11,
                width=0.0625,
                ssd_tail=True,
                norm_cfg=dict(type=norm) if norm else None,
                act_cfg=act_cfg,
                **backbone,
            ),
            neck=dict(
                type='HoyerSSDNeck',
                in_channels=channels[:2],
                out_channels=channels,
                level_strides=(2,),
                level_paddings=(1,),
                act_cfg=act_cfg,
            ),
            bbox_head=dict(
                type='SSDHead',
                in_channels=channels,
                num_classes=2,
                anchor_generator=dict(
                    type='SSDAnchorGenerator',
                    scale_major=False,
                    input_size=SIDE,
                    min_sizes=[10, 20, 40],
                    max_sizes=[20, 40, 60],
                    strides=[8, 16, 32],
                    ratios=[[2], [2], [2]],
                ),
                bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
            ),
            train_cfg=dict(
                assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5),
                sampler=dict(type='PseudoSampler'),
                smoothl1_beta=1.0,
                allowed_border=-1,
                pos_weight=-1,
                neg_pos_ratio=3,
                debug=False,
            ),
            test_cfg=ConfigDict(
                nms_pre=100, nms=dict(type='nms', iou_threshold=0.45), score_thr=0.0, max_per_img=10
            ),
        )
    )
    model.init_weights()
    return model.train()


def images(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random images for it, as a data set hands them out."""
    return random_items(number, SIDE, seed)


def batch(model: nn.Module, number: int = 2, seed: int = 0) -> dict[str, Any]:
    """A batch that has been through the model's preprocessor, without its random part."""
    return model.data_preprocessor(pseudo_collate(images(number, seed)), True)


class Watch(Hook):
    """Keeps what the training loop reports of each iteration."""

    def __init__(self) -> None:
        self.logs: list[dict[str, torch.Tensor]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.logs.append(outputs)


def train(
    model: nn.Module,
    hooks: list[Any],
    folder: Path,
    iters: int = 1,
    cfg: Config | None = None,
    **optim: Any,
) -> Runner:
    """Train by a real Runner on ``iters`` batches of two images, in order."""
    data = [item for seed in range(iters) for item in images(2, seed)]
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=DataLoader(data, batch_size=2, collate_fn=pseudo_collate),
        train_cfg=dict(by_epoch=False, max_iters=iters),
        optim_wrapper={
            'type': 'OptimWrapper',
            'optimizer': dict(type='SGD', lr=1.0),
            **optim,
        },
        custom_hooks=hooks,
        default_hooks=dict(checkpoint=None, logger=None),
        default_scope='mmdet',
        log_level='ERROR',
        experiment_name=f'tiny_ssd_{next(_names)}',
        cfg=cfg,
    )
    runner.train()
    return runner
