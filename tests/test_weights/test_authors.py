"""The authors' layout and ours: the same function, and bit-exact the same tensors after the way back."""

import re
from argparse import Namespace

import pytest
import torch
from authors_models import MODELS, AuthorsResNet, AuthorsVGG, shake
from hoyer_det.commands.convert import convert
from hoyer_det.engine.neuron_settings import neuron_settings
from hoyer_det.pretrain import SpikingClassifier
from hoyer_det.spiking import spiking_layers
from hoyer_det.weights import from_authors, read_checkpoint, to_authors
from torch import nn


def build_ours(name: str, backbone: dict) -> SpikingClassifier:
    head = dict(type='SpikingReadout', num_classes=7, act_cfg=dict(type='HoyerSpike'))
    if 'vgg' in name:
        head |= dict(hidden=(24, 24), bias=False, pool_size=2 if 'CIFAR' in name else 1)
    else:
        head |= dict(input_act=True)
    return SpikingClassifier(backbone, head)


@pytest.mark.parametrize('name', MODELS)
def test_converted_classifier_computes_the_same(name):
    theirs = shake(MODELS[name]())
    converted = from_authors(theirs.state_dict())
    assert converted.left == []
    ours = build_ours(name, converted.backbone).eval()
    ours.load_state_dict(converted.weights)  # strict: all names and shapes
    side = 32 if 'vgg' in name or 'CIFAR' in name else 64
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = theirs(images), ours(images)
    assert wanted.std() > 1e-3  # not a dead network
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', MODELS)
def test_way_back_is_bit_exact(name):
    before = shake(MODELS[name]()).state_dict()
    converted = from_authors(before)
    names = converted.names if 'dropout' in name else None  # else their numbering follows by itself
    back = to_authors(converted.weights, names, final_pool='CIFAR' not in name)
    assert back.left == []
    assert back.weights.keys() == before.keys()
    for key, tensor in before.items():
        assert back.weights[key].dtype == tensor.dtype, key
        assert back.weights[key].shape == tensor.shape, key
        assert torch.equal(back.weights[key], tensor), key


def test_our_own_weights_get_their_average_without_the_start_correction():
    model = build_ours('vgg', dict(type='HoyerVGG', depth=16, width=1 / 16, out_indices=(4,)))
    neuron = model.backbone.stages[0][0].act
    neuron.running_extremum.fill_(0.3)
    neuron.running_weight.fill_(0.5)
    back = to_authors(model.state_dict()).weights
    assert back['features.2.running_hoyer_thr'].item() == pytest.approx(0.6)
    # A neuron that saw nothing fires at the clip threshold.
    assert back['features.6.running_hoyer_thr'].item() == 1.0
    assert back['features.2.num_batches_tracked'].item() == 0
    theirs = AuthorsVGG()
    theirs.features[2].running_hoyer_thr = torch.zeros(1)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert back.keys() == shapes.keys()


def to_authors_args(folder) -> Namespace:
    files = dict(source=str(folder / 'ours.pth'), target=str(folder / 'theirs.pth'))
    return Namespace(direction='to-authors', **files, leave=[], no_final_pool=False)


def test_extremum_scale_goes_into_their_average(tmp_path):
    act_cfg = dict(type='HoyerSpike', extremum='channel', extremum_scale=0.5)
    backbone = dict(type='HoyerVGG', depth=16, width=1 / 16, out_indices=(4,), act_cfg=act_cfg)
    ours = shake(build_ours('vgg', backbone)).train()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours(images)  # gives the neurons their averages
        wanted = ours.eval()(images)
    content = dict(state_dict=ours.state_dict(), meta=dict(neurons=neuron_settings(ours)))
    torch.save(content, tmp_path / 'ours.pth')
    convert(to_authors_args(tmp_path))
    theirs = AuthorsVGG().eval()
    theirs.load_state_dict(read_checkpoint(tmp_path / 'theirs.pth').weights)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(theirs(images), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    'setting, message',
    [
        ('shortcut=True', r'ours\.pth: model\.backbone\.shortcut=True'),
        ('act_cfg=dict(extremum_scale=0.5)', r'ours\.pth: .*no meta\.neurons'),
    ],
)
def test_what_weights_do_not_show_is_refused(setting, message, tmp_path):
    weights = from_authors(AuthorsVGG().state_dict()).weights
    cfg = f"model = dict(backbone=dict(type='HoyerVGG', depth=16, {setting}))"
    torch.save(dict(state_dict=weights, meta=dict(cfg=cfg)), tmp_path / 'ours.pth')
    with pytest.raises(ValueError, match=message):
        convert(to_authors_args(tmp_path))
    assert not (tmp_path / 'theirs.pth').exists()


def test_extremum_per_layer_and_per_channel_are_told_apart():
    assert from_authors(AuthorsVGG().state_dict()).backbone['act_cfg']['extremum'] == 'channel'
    resnet = from_authors(AuthorsResNet(True, (3, 4, 6, 3)).state_dict())
    assert resnet.backbone['act_cfg']['extremum'] == 'layer'
    assert resnet.backbone['base_channels'] == 4


def test_what_has_no_counterpart_is_listed():
    weights = AuthorsVGG().state_dict()
    weights['features.0.bias'] = torch.zeros(4)
    weights['features.2.leak'] = torch.tensor(1.0)
    weights['kd_conv.weight'] = torch.zeros(4, 4, 1, 1)
    converted = from_authors(weights)
    assert sorted(converted.left) == ['features.0.bias', 'features.2.leak', 'kd_conv.weight']
    assert len(converted.weights) == len(weights) - 3


def test_detector_weights_beside_the_backbone_are_listed():
    model = build_ours('resnet', dict(type='HoyerResNet', depth=18, base_channels=4))
    weights = {k: v for k, v in model.state_dict().items() if k.startswith('backbone.')}
    weights['bbox_head.cls.weight'] = torch.zeros(3)
    left = to_authors(weights).left
    assert 'bbox_head.cls.weight' in left
    assert all(name.startswith(('backbone.outputs.', 'bbox_head.')) for name in left)


def drop(weights: dict, name: str) -> None:
    del weights[name]


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda w: w['features.2.threshold'].fill_(-1.0), r'features\.2\.threshold is -1'),
        (lambda w: w['features.2.num_batches_tracked'].fill_(3), 'num_batches_tracked is not 0'),
        (lambda w: drop(w, 'features.2.running_hoyer_thr'), 'without running_hoyer_thr'),
        (lambda w: drop(w, 'features.1.running_var'), r'no weights for stages\.0\.0\.norm'),
        (lambda w: w.update({'features.0.weight': torch.zeros(5, 3, 3, 3)}), r'HoyerVGG\(depth=16'),
        (lambda w: [drop(w, k) for k in list(w) if k.startswith('features.0.')], 'in turn'),
        (lambda w: w.clear(), 'no classifier of the authors'),
    ],
)
def test_what_cannot_be_converted_is_refused(change, message):
    weights = AuthorsVGG().state_dict()
    change(weights)
    with pytest.raises(ValueError, match=message):
        from_authors(weights)


@pytest.mark.parametrize(
    'gone, message',
    [(r'.*(threshold|hoyer_thr)', '^no spike layer'), (r'bn1\..*', '^bn1: missing')],
    ids=['spike layers, as in a ReLU network', 'norm of the stem'],
)
def test_a_resnet_without_some_layers_is_refused(gone, message):
    weights = AuthorsResNet(True, (3, 4, 6, 3), base=1).state_dict()
    kept = {name: tensor for name, tensor in weights.items() if not re.fullmatch(gone, name)}
    with pytest.raises(ValueError, match=message):
        from_authors(kept)


def test_depths_that_we_do_not_have_are_refused():
    with pytest.raises(ValueError, match=r'\(6, 8, 10, 6\) blocks'):
        from_authors(AuthorsResNet(False, (6, 8, 10, 6), base=1).state_dict())
    vgg = AuthorsVGG()
    vgg.features = vgg.features[:-3]  # a convolution and its pooling fewer
    with pytest.raises(ValueError, match='convolutions|in turn'):
        from_authors(vgg.state_dict())
    moved = AuthorsVGG()
    moved.features = nn.Sequential(
        *(layer for layer in moved.features if not isinstance(layer, nn.MaxPool2d))
    )
    with pytest.raises(ValueError, match='pooling behind convolutions'):
        from_authors(moved.state_dict())
    with pytest.raises(ValueError, match='no SpikingClassifier'):
        to_authors({'a.weight': torch.zeros(1)})


def test_converted_neurons_fire_by_the_average_as_it_stands():
    converted = from_authors(shake(AuthorsVGG()).state_dict())
    model = build_ours('vgg', converted.backbone)
    model.load_state_dict(converted.weights)
    for layer in spiking_layers(model).values():
        assert torch.equal(layer.running_weight, torch.ones_like(layer.running_extremum))
