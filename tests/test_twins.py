"""Twins: what they change in any config, what a dumped one needs, and checkpoints of another twin."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.spiking import HoyerSpike
from hoyer_det.twins import TWINS, check_twin, make_twin
from hoyer_det.weights import read_checkpoint
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

SSD = CONFIGS / 'hoyer_ssd_voc.py'


@functools.cache
def ssd(kind: str | None) -> tuple[Config, str]:
    """The SSD config or a twin of it, and what a checkpoint says of it."""
    cfg = load_config(SSD, twin=kind)
    return cfg, cfg.pretty_text


def build(cfg: Config) -> nn.Module:
    init_default_scope('mmdet')
    with torch.device('meta'):
        return MODELS.build(copy.deepcopy(cfg.model))


def neurons(model: nn.Module) -> list[HoyerSpike]:
    return [module for module in model.modules() if isinstance(module, HoyerSpike)]


def hooks(cfg: Config) -> dict[str, dict]:
    return {hook['type']: hook for hook in cfg.custom_hooks}


def test_level_and_regularizer_can_be_told_apart():
    spiking, onebit, level = (load_config(SSD, twin=kind) for kind in (None, 'onebit', 'level'))
    assert level.model == onebit.model != spiking.model
    assert level.custom_hooks == spiking.custom_hooks
    assert hooks(level)['HoyerRegularizerHook']['weight'] == 1e-8
    assert hooks(onebit)['HoyerRegularizerHook']['weight'] == 0
    assert [hook['type'] for hook in onebit.custom_hooks] == list(hooks(spiking))
    assert {layer.extremum for layer in neurons(build(level))} == {'fixed'}


@pytest.mark.parametrize(
    'name, before',
    [
        ('swap/faster_rcnn_r50_coco', 'ReLU'),  # a backbone whose act_cfg the config leaves out
        ('swap/ssdlite_mobilenetv2_coco', 'ReLU6'),  # SpikingDetector around MMDetection's own
        ('swap/yolox_s_coco', 'Swish'),
        ('pretrain/digits_hoyer_vgg11', 'ReLU'),
        ('pretrain/cifar10_hoyer_resnet18', 'ReLU'),
    ],
)
def test_any_config_with_neurons_has_twins(name, before):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    text = cfg.pretty_text
    spiking = build(cfg)
    relu = build(make_twin(cfg, 'relu'))
    assert neurons(spiking) and not neurons(relu)
    assert before in {type(module).__name__ for module in relu.backbone.modules()}
    weights = {key for key, _ in spiking.named_parameters() if not key.endswith('.threshold')}
    assert {key for key, _ in relu.named_parameters()} == weights
    fixed = build(make_twin(cfg, 'level'))
    assert len(neurons(fixed)) == len(neurons(spiking))
    assert {layer.extremum for layer in neurons(fixed)} == {'fixed'}
    assert cfg.pretty_text == text


def test_lif_twin_has_the_weights_and_means_over_time():
    cfg, _ = ssd('lif')
    model = build(cfg)
    assert not neurons(model)
    kinds = [type(module).__name__ for module in model.modules()]
    assert kinds.count('LIFSpike') == len(neurons(build(ssd(None)[0])))
    names = {key.replace('.module.', '.') for key, _ in model.named_parameters()}
    assert names == {key for key, _ in build(ssd('relu')[0]).named_parameters()}
    assert not [hook for hook in hooks(cfg) if 'Hoyer' in hook or 'Spike' in hook]

    small = load_config(CONFIGS / 'hoyer_ssd_shapes.py', twin='lif')
    init_default_scope('mmdet')
    detector = MODELS.build(small.model).eval()
    steps = []
    detector.neck.module.register_forward_hook(lambda *call: steps.append(call[2]))
    with torch.no_grad():
        features = detector.extract_feat(torch.rand(2, 3, 128, 128))
    for mean, spikes in zip(features, steps[0], strict=True):
        assert set(spikes.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(mean, (spikes[0:2] + spikes[2:4] + spikes[4:6] + spikes[6:8]) / 4)


def test_neurons_in_the_head_have_no_lif_twin():
    with pytest.raises(ValueError, match='neurons outside its backbone and neck'):
        load_config(CONFIGS / 'hoyer_yolov3_voc.py', twin='lif')


def test_hooks_that_need_neurons_are_left_out_of_relu_only():
    file = CONFIGS / 'pretrain' / 'fine_tuning' / 'from_ann_ssd_shapes.py'
    kept = [hook for hook in hooks(load_config(file, twin='relu')) if 'Hoyer' in hook]
    assert not kept
    assert 'CalibrateFromANNHook' not in hooks(load_config(file, twin='relu'))
    assert 'EMAHook' in hooks(load_config(file, twin='relu'))
    assert 'CalibrateFromANNHook' in hooks(load_config(file, twin='level'))


def test_options_reach_the_twin():
    cfg = load_config(SSD, {'model.backbone.width': 0.066, 'work_dir': 'here'}, 'relu')
    assert (cfg.model.backbone.width, cfg.work_dir) == (0.066, 'here')
    assert cfg.model.backbone.act_cfg == dict(type='ReLU')


@pytest.mark.parametrize('kind', TWINS)
def test_dumped_twin_needs_no_flag_and_takes_none(kind, tmp_path):
    original = Config.fromfile(SSD)
    original.work_dir = 'runs/mine'
    cfg = make_twin(original, kind)
    assert Path(cfg.filename).name == f'hoyer_ssd_voc_{kind}.py'
    assert cfg.work_dir == f'runs/mine_{kind}'
    cfg.dump(tmp_path / 'dumped.py')
    again = load_config(tmp_path / 'dumped.py')
    assert again.to_dict() == cfg.to_dict()
    with pytest.raises(ValueError, match=rf'dumped\.py: is a {kind} twin itself'):
        make_twin(again, 'relu')


@pytest.mark.parametrize(
    'model, kind, message',
    [
        (dict(type='RetinaNet'), 'relu', r'plain\.py: its model has no neuron'),
        (
            dict(type='RetinaNet'),
            'reul',
            "twin 'reul': no such kind; known are relu, onebit, level",
        ),
        (
            dict(type='X', act_cfg=dict(type='HoyerSpike', extremum='fixed')),
            'level',
            'at a fixed level already',
        ),
    ],
)
def test_no_such_twin(model, kind, message):
    with pytest.raises(ValueError, match=message):
        make_twin(Config(dict(model=model), cfg_text='x', filename='plain.py'), kind)


@pytest.mark.parametrize('trained', [None, *TWINS])
@pytest.mark.parametrize('used', [None, *TWINS])
def test_checkpoint_of_another_twin(trained, used, tmp_path):
    file = tmp_path / 'net.pth'
    text = ssd(trained)[1]
    torch.save(dict(state_dict=dict(a=torch.zeros(1)), meta=dict(cfg=text)), file)
    cfg, _ = ssd(used)
    if trained == used:
        check_twin(cfg, read_checkpoint(file))
        return
    flag = f'give --twin {trained}' if trained else 'leave --twin out'
    with pytest.raises(ValueError, match=rf'net\.pth: is a checkpoint of .*{flag}'):
        check_twin(cfg, read_checkpoint(file))


@pytest.mark.parametrize('flag', ['', "twin = 'onebit'\n"])
def test_checkpoint_of_before_the_flag_or_with_a_formatted_config(flag, tmp_path):
    file = tmp_path / 'net.pth'
    cfg, text = ssd('onebit')
    assert "\ntwin='onebit'\n" in text
    text = text.replace("twin='onebit'\n", flag)
    torch.save(dict(state_dict=dict(a=torch.zeros(1)), meta=dict(cfg=text)), file)
    check_twin(cfg, read_checkpoint(file))
    with pytest.raises(ValueError, match='of the onebit twin, not of the level twin'):
        check_twin(ssd('level')[0], read_checkpoint(file))
