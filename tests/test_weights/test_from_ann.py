"""Weights of ReLU networks in the spiking structure: what has a counterpart computes the same."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from conftest import CONFIGS
from hoyer_det.backbones import HoyerResNet, HoyerVGG
from hoyer_det.config import load_config
from hoyer_det.engine.checkpoint import check_starting_weights
from hoyer_det.spiking import spiking_layers
from hoyer_det.weights import FromANN, map_ann
from hoyer_det.weights.from_ann import modules_from_ann
from hoyer_det.weights.reading import drop_starts
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from mmengine.model import PretrainedInit
from torch import nn
from torchvision.models import get_model
from torchvision.models.vgg import cfgs, make_layers

RELU = dict(type='ReLU')


def narrow_vgg(letter: str, batch_norm: bool) -> nn.ModuleDict:
    """torchvision's VGG features with a sixteenth of the channels, every tensor with its own value."""
    layers = [c if c == 'M' else c // 16 for c in cfgs[letter]]
    net = nn.ModuleDict(dict(features=make_layers(layers, batch_norm)))
    return shake(net)


def shake(net: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=draw)
            if module.bias is not None:
                module.bias.data.normal_(generator=draw)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(-1, 1.5, generator=draw)  # some negative
            module.bias.data.uniform_(-0.5, 0.5, generator=draw)
            module.running_mean.normal_(generator=draw)
            module.running_var.uniform_(0.5, 2, generator=draw)
    net.eval()
    return net


def images(side: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_vgg_with_its_norms_behind_the_pooling_computes_the_same():
    source = narrow_vgg('D', batch_norm=True)
    twin = HoyerVGG(16, width=1 / 16, out_indices=(4,), act_cfg=RELU).eval()
    mapped = map_ann(source.state_dict(), twin)
    assert mapped.left == []
    twin.load_state_dict(mapped.weights)  # strict
    wanted, (found,) = source['features'](images()), twin(images())
    assert wanted.std() > 1e-2
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_ssd_vgg_gives_its_two_extra_convolutions():
    source = narrow_vgg('D', batch_norm=False)
    # MMDetection's SSDVGG: the pooling moves on the numbers, fc6 and fc7 follow.
    source['features'].extend([nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 1)])
    backbone = HoyerVGG(16, width=1 / 16, ssd_tail=True)
    mapped = map_ann(source.state_dict(), backbone)
    fc6, fc7 = source['features'][-3].weight, source['features'][-1].weight
    assert torch.equal(mapped.weights['stages.5.0.conv.weight'], fc6)
    assert torch.equal(mapped.weights['stages.5.1.conv.weight'], fc7)
    assert len(mapped.weights) == 15
    # A norm would subtract the biases.
    assert mapped.left == [name for name in source.state_dict() if name.endswith('.bias')]


def test_resnet18_becomes_a_block_a_convolution():
    source = shake(ResNet(18, base_channels=8, stem_channels=8))
    backbone = HoyerResNet(18, base_channels=8)
    mapped = map_ann(source.state_dict(), backbone)
    own, theirs = mapped.weights, source.state_dict()
    for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
        assert torch.equal(own[f'stages.1.0.norm.{leaf}'], theirs[f'layer2.0.bn1.{leaf}'])
        assert torch.equal(own[f'stages.1.3.norm.{leaf}'], theirs[f'layer2.1.bn2.{leaf}'])
    assert torch.equal(own['stages.1.0.conv.weight'], theirs['layer2.0.conv1.weight'])
    assert torch.equal(own['stages.1.3.conv.weight'], theirs['layer2.1.conv2.weight'])
    lost = {'bias', 'running_mean', 'num_batches_tracked'}
    assert set(mapped.left) == {
        f'layer{layer}.0.downsample.1.{leaf}' for layer in (2, 3, 4) for leaf in lost
    }
    # Not yet in the source: the norms of the shortcuts; all else of the network is.
    backbone.load_state_dict(own, strict=False)
    fresh = {n for n, _ in backbone.named_parameters() if n not in own and 'threshold' not in n}
    assert fresh == {
        f'stages.{s}.0.shortcut.norm.{leaf}' for s in (1, 2, 3) for leaf in ('weight', 'bias')
    }


def test_resnet50_keeps_scales_that_have_no_norm_any_more():
    source = shake(ResNet(50, base_channels=4, stem_channels=4))
    mapped = map_ann(source.state_dict(), HoyerResNet(50, base_channels=4))
    block, own = source.layer1[0], mapped.weights
    x = torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        wanted = block.bn3(block.conv3(x))
        found = nn.functional.conv2d(x, own['stages.0.0.conv3.weight'])
        difference = (wanted - found).flatten(2)
        torch.testing.assert_close(difference.std(2), torch.zeros(2, 16), atol=1e-5, rtol=0)
        wanted = block.downsample(x).flatten(2)
        found = nn.functional.conv2d(x, own['stages.0.0.shortcut.conv.weight']).flatten(2)
        torch.testing.assert_close(wanted.diff(dim=2), found.diff(dim=2), rtol=1e-4, atol=1e-5)
    assert torch.equal(own['stages.0.0.norm2.bias'], source.state_dict()['layer1.0.bn1.bias'])
    assert torch.equal(own['stages.0.0.conv2.weight'], block.conv2.weight)
    left = {name.split('.', 2)[2] for name in mapped.left}
    lost = {'bias', 'running_mean', 'num_batches_tracked'}
    assert left == {f'{n}.{leaf}' for n in ('bn3', 'downsample.1') for leaf in lost}


def test_stem_of_a_resnet_with_its_norm_behind_the_pooling_computes_the_same():
    source = shake(ResNet(18, base_channels=8, stem_channels=8))
    twin = HoyerResNet(18, base_channels=8, act_cfg=RELU).eval()
    twin.load_state_dict(map_ann(source.state_dict(), twin).weights, strict=False)
    with torch.no_grad():
        wanted = source.maxpool(source.relu(source.bn1(source.conv1(images()))))
        found = twin.stem(images()).relu()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def save(weights: dict, path: Path, prefix: str = '') -> str:
    torch.save(dict(state_dict={prefix + k: v for k, v in weights.items()}), path)
    return str(path)


def test_init_cfg_fills_a_backbone_and_logs_what_was_left(tmp_path, caplog):
    source = narrow_vgg('A', batch_norm=True)
    weights = {**source.state_dict(), 'classifier.0.weight': torch.zeros(2, 2)}
    file = save(weights, tmp_path / 'ann.pth')
    logger = MMLogger.get_instance('from_ann', log_file=str(tmp_path / 'log.txt'))
    MMLogger._instance_dict.move_to_end(logger.instance_name)
    torch.manual_seed(0)
    backbone = HoyerVGG(
        11, width=1 / 16, ssd_tail=True, init_cfg=dict(type='FromANN', checkpoint=file)
    )
    backbone.init_weights()
    stages = backbone.state_dict()
    assert torch.equal(stages['stages.4.1.norm.bias'], weights['features.26.bias'])
    fc6 = stages['stages.5.0.conv.weight']  # not in the source: Kaiming's deviation
    assert fc6.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
    text = (tmp_path / 'log.txt').read_text()
    assert 'without counterpart here: classifier.0.weight' in text
    assert 'started fresh: ' in text and 'stages.5.0.conv.weight' in text


def test_relu_twin_is_taken_by_name_from_under_its_prefix(tmp_path):
    twin = HoyerVGG(11, width=0.05, ssd_tail=True, act_cfg=RELU, bias_spread=0)
    shake(twin)
    file = save({**twin.state_dict()}, tmp_path / 'twin.pth', 'backbone.')
    init_cfg = dict(type='FromANN', checkpoint=file, prefix='backbone.')
    spiking = HoyerVGG(11, width=0.05, ssd_tail=True, init_cfg=init_cfg)
    spiking.init_weights()
    for name, value in twin.state_dict().items():
        assert torch.equal(spiking.state_dict()[name], value), name
    assert spiking_layers(spiking)


@pytest.mark.parametrize(
    'make, backbone, message',
    [
        (lambda: narrow_vgg('A', True).state_dict(), lambda: HoyerVGG(16, 1 / 16), 'does not fit'),
        (lambda: {'a.weight': torch.zeros(1)}, lambda: HoyerVGG(11), "no convolution under 'feat"),
        (lambda: {'a.weight': torch.zeros(1)}, lambda: HoyerResNet(18), "no 'conv1'"),
        (lambda: ResNet(18).state_dict(), lambda: HoyerResNet(50), 'differ in their blocks'),
        (lambda: HoyerVGG(11).state_dict(), lambda: HoyerVGG(11), 'the source spikes'),
        (dict, lambda: nn.Conv2d(1, 1, 1), 'Conv2d is neither'),
    ],
)
def test_what_does_not_fit_is_refused(make, backbone, message):
    with pytest.raises(ValueError, match=message):
        map_ann(make(), backbone())


def test_missing_prefix_is_refused(tmp_path):
    file = save(narrow_vgg('A', True).state_dict(), tmp_path / 'ann.pth')
    backbone = HoyerVGG(11, init_cfg=dict(type='FromANN', checkpoint=file, prefix='backbone'))
    with pytest.raises(ValueError, match=r"no weights under 'backbone\.'"):
        backbone.init_weights()


def test_name_of_torchvision_becomes_an_address(monkeypatch):
    calls = []

    def load(address, **settings):
        calls.append(address.rpartition('/')[2][:8])
        return narrow_vgg('D', True).state_dict()

    monkeypatch.setattr('mmengine.runner.checkpoint.load_url', load)
    init_cfg = dict(type='FromANN', checkpoint='torchvision://vgg16_bn')
    backbone = HoyerVGG(16, width=1 / 16, init_cfg=init_cfg)
    backbone.init_weights()
    assert set(calls) == {'vgg16_bn'}
    wanted = narrow_vgg('D', True)['features'][40].weight
    assert torch.equal(backbone.stages[4][2].conv.weight.abs(), wanted.abs())
    backbone = HoyerVGG(16, init_cfg=dict(type='FromANN', checkpoint='torchvision://vgg17'))
    with pytest.raises(ValueError, match='torchvision://vgg17: no weights of this name'):
        backbone.init_weights()


SHIPPED = [
    'hoyer_ssd_voc',
    'hoyer_ssd512_coco',
    'hoyer_yolov3_320_voc',
    'hoyer_yolov3_r50_coco',
    'hoyer_retinanet_r18_voc',
    'hoyer_faster_rcnn_r50_coco',
]


@pytest.mark.parametrize('name', SHIPPED)
def test_imagenet_weights_of_shipped_configs_fit(name):
    cfg = load_config(CONFIGS / f'{name}.py')
    with torch.device('meta'):
        backbone_cfg = cfg.model.get('detector', cfg.model).backbone
        ((backbone, start),) = modules_from_ann(MODELS.build(backbone_cfg))
        source = get_model(start.checkpoint.removeprefix('torchvision://')).state_dict()
        mapped = map_ann(source, backbone)
    assert not [left for left in mapped.left if left.startswith('features')]
    convs = {n for n, p in backbone.named_parameters() if p.dim() == 4 and 'stages.5' not in n}
    assert convs <= mapped.weights.keys()
    hooks = [hook for hook in cfg.custom_hooks if hook.type == 'CalibrateFromANNHook']
    assert [hook.only_from_ann for hook in hooks] == [True]


def test_download_that_fails_names_the_ways_out(monkeypatch):
    def fail(*args, **kwargs):
        raise URLError('no network')

    monkeypatch.setattr('mmengine.runner.checkpoint.load_url', fail)
    cfg = load_config(CONFIGS / 'hoyer_ssd_voc.py')
    cfg.model.backbone.width = 1 / 16
    with pytest.raises(
        ConnectionError, match='no network.*init_cfg.checkpoint=FILE.*init_cfg=None'
    ):
        check_starting_weights(cfg)
    check_starting_weights(
        load_config(CONFIGS / 'hoyer_ssd_voc.py', {'model.backbone.init_cfg': None})
    )


@pytest.mark.parametrize(
    'kind', ['Pretrained', 'mmengine.model.weight_init.PretrainedInit', PretrainedInit, FromANN]
)
def test_every_spelling_of_a_start_is_checked_and_dropped(kind):
    cfg = load_config(CONFIGS / 'hoyer_ssd_voc.py')
    cfg.model.backbone.update(
        width=1 / 16, init_cfg=[dict(type='Kaiming'), dict(type=kind, checkpoint='/nowhere.pth')]
    )
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        check_starting_weights(cfg)
    drop_starts(cfg.model)
    assert cfg.model.backbone.init_cfg == [dict(type='Kaiming')]
    check_starting_weights(cfg)
