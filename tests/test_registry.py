"""The neuron as an ``act_cfg``, and what else the package makes known to MMDetection."""

import hoyer_det
import pytest
import torch
from hoyer_det.spiking import HoyerSpike, spiking_layers
from mmcv.cnn import ConvModule
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.registry import DefaultScope


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet'])
@pytest.mark.parametrize('extremum', ['layer', 'channel'])
def test_conv_module_takes_the_neuron_in_every_scope(scope, extremum):
    with DefaultScope.overwrite_default_scope(scope):
        module = ConvModule(
            3, 4, 3, norm_cfg=dict(type='BN'), act_cfg=dict(type='HoyerSpike', extremum=extremum)
        )
    assert isinstance(module.activate, HoyerSpike)
    spikes = module(torch.rand(2, 3, 8, 8))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert module.activate.running_extremum.numel() == (4 if extremum == 'channel' else 1)


def test_a_backbone_of_mmdetection_spikes_by_its_act_cfg():
    backbone = MODELS.build(
        dict(
            type='Darknet',
            depth=53,
            out_indices=(3,),
            act_cfg=dict(type='HoyerSpike'),
            frozen_stages=-1,
        )
    )
    assert len(spiking_layers(backbone)) == 52  # one behind each convolution of Darknet-53
    (features,) = backbone(torch.rand(2, 3, 64, 64))
    features.sum().backward()
    first = next(backbone.parameters())
    assert first.grad is not None and torch.isfinite(first.grad).all() and first.grad.any()


def test_registered_names():
    for registry, names in (
        (MODELS, ['HoyerSpike', 'HoyerVGG', 'HoyerResNet', 'SpikingDetector', 'HoyerYOLOV3Head']),
        (MODELS, ['HoyerSSDNeck', 'HoyerYOLOV3Neck', 'HoyerFPN']),
        (HOOKS, ['HoyerRegularizerHook', 'SpikeRateHook', 'DetectionPicturesHook']),
        (METRICS, ['FasterCocoMetric']),
        (DATASETS, ['CocoFormatDataset', 'ShapesDataset', 'VOCFormatDataset']),
    ):
        assert all(registry.get(name) is not None for name in names)
    assert hoyer_det.__version__
