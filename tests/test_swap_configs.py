"""MMDetection's own configs with a spiking backbone: what they change, and that they run."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmdet
import pytest
import torch
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.spiking import HoyerSpike
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from torch import nn

SIDE = 64
SWAPS = sorted(path.name for path in (CONFIGS / 'swap').glob('[!_]*.py'))
NAMES = [
    'atss_r50',
    'cascade_rcnn_r50',
    'faster_rcnn_r50',
    'fcos_r50',
    'free_anchor_r50',
    'fsaf_r50',
    'gfl_r50',
    'mask_rcnn_r50',
    'paa_r50',
    'retinanet_r18',
    'retinanet_r50',
    'rtmdet_tiny',
    'ssdlite_mobilenetv2',
    'tood_r50',
    'vfnet_r50',
    'yolof_r50',
    'yolox_s',
]


def load(name: str) -> Config:
    return load_config(CONFIGS / 'swap' / name)


def detector(cfg: Config) -> Any:
    """The config of the detector itself."""
    return cfg.model.get('detector', cfg.model)


def dicts(node: Any) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from dicts(item)


def small_model(cfg: Config) -> nn.Module:
    """Build the model with a quarter of the ResNet's width and small fully connected layers."""
    init_default_scope('mmdet')
    model = detector(cfg)
    if model.backbone.type == 'HoyerResNet':
        model.backbone.base_channels = 16
        widths = model.neck.in_channels
        quarter = widths // 4 if isinstance(widths, int) else [width // 4 for width in widths]
        model.neck.in_channels = quarter
    for node in dicts(model):
        node.pop('batch_augments', None)  # would change the size of the images
        for key, most in dict(num=32, fc_out_channels=64, nms_pre=100).items():
            if key in node:
                node[key] = min(node[key], most)
    MessageHub.get_current_instance().update_info_dict(dict(epoch=0, iter=0))  # TOOD asks it
    torch.manual_seed(0)
    return MODELS.build(cfg.model)


def base_of(name: str) -> Config:
    """The config of MMDetection that a file puts a backbone into."""
    path = re.search(r"'mmdet::(.*?)'", (CONFIGS / 'swap' / name).read_text())[1]
    return Config.fromfile(Path(mmdet.__file__).parent / '.mim' / 'configs' / path)


def plain(node: Any) -> Any:
    """The same without the scopes that MMEngine writes into what comes from another package."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items() if key != '_scope_'}
    return type(node)(map(plain, node)) if isinstance(node, list | tuple) else node


def test_every_detector_of_the_list_is_there() -> None:
    assert sorted([*(f'{name}_coco.py' for name in NAMES), 'faster_rcnn_r50_voc.py']) == SWAPS


@pytest.mark.parametrize('name', SWAPS)
def test_only_backbone_hooks_and_decay_differ(name: str) -> None:
    cfg, base = plain(load(name).to_dict()), plain(base_of(name).to_dict())
    changed = {'model', 'custom_hooks', 'optim_wrapper'}
    if 'voc' in name:
        changed |= {'train_dataloader', 'train_pipeline'}
    for key in set(base) - changed:
        assert cfg[key] == base[key], key
    hooks = [
        dict(type='HoyerRegularizerHook', weight=1e-9),
        dict(type='SpikeRateHook'),
        dict(type='CheckFiniteHook'),
        dict(type='NeuronSettingsHook'),
        dict(type='SharedNeuronHook'),
        dict(type='SyncAllBuffersHook'),
    ]
    assert cfg['custom_hooks'] == base.get('custom_hooks', []) + hooks
    base_keys = base['optim_wrapper'].setdefault('paramwise_cfg', {}).setdefault('custom_keys', {})
    no_decay = cfg['optim_wrapper']['paramwise_cfg']['custom_keys'].pop('threshold')
    assert no_decay == dict(decay_mult=0.0)
    base_keys.pop('backbone', None)  # a lower rate is for pre-trained weights
    assert cfg['optim_wrapper'] == base['optim_wrapper']
    swapped, original = cfg['model'].get('detector', cfg['model']), base['model']
    for model in (swapped, original):
        del model['backbone']
        model['neck'].pop('in_channels'), model['neck'].pop('start_level', None)
    assert swapped == original


def test_voc_config_trains_on_all_images_at_several_scales() -> None:
    cfg, base = load('faster_rcnn_r50_voc.py'), base_of('faster_rcnn_r50_voc.py')
    for ours, theirs in zip(
        *(
            plain(c.train_dataloader.to_dict())['dataset']['dataset']['datasets']
            for c in (cfg, base)
        ),
        strict=True,
    ):
        pipeline = ours.pop('pipeline')
        assert [step['type'] for step in pipeline] == [
            *('LoadImageFromFile', 'LoadAnnotations', 'RandomResize', 'RandomFlip', 'PackDetInputs')
        ]
        assert ours == {key: value for key, value in theirs.items() if key != 'pipeline'}


@pytest.mark.parametrize('name', SWAPS)
def test_swapped_detector_trains_all_of_its_weights_and_predicts(name: str) -> None:
    if 'paa' in name and importlib.util.find_spec('sklearn') is None:
        pytest.skip('PAA of MMDetection needs scikit-learn')
    cfg = load(name)
    assert not any(node.get('type') == 'Pretrained' for node in dicts(cfg.model.to_dict()))
    model = small_model(cfg)
    backbone = list(model.backbone.modules())
    assert any(isinstance(module, HoyerSpike) for module in backbone)
    assert not any(isinstance(m, nn.ReLU | nn.ReLU6 | nn.SiLU) for m in backbone)
    batch = demo_mm_inputs(2, [(3, SIDE, SIDE)] * 2, num_items=[4, 3], with_mask='mask' in name)
    model.train()
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
    predictions = model.eval().test_step(batch)
    assert ['pred_instances' in sample for sample in predictions] == [True, True]
