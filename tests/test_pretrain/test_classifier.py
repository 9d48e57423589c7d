"""The classifier, the CIFAR backbones, the data sets and the metric."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CONFIGS
from hoyer_det.backbones import HoyerResNet, HoyerVGG
from hoyer_det.config import load_config
from hoyer_det.evaluation import TopKAccuracy
from hoyer_det.pretrain import (
    DigitsDataset,
    HoyerResNetCIFAR,
    HoyerVGGCIFAR,
    SpikingClassifier,
    SpikingReadout,
    TorchvisionDataset,
)
from hoyer_det.spiking import HoyerSpike, spiking_layers
from mmdet.registry import MODELS
from PIL import Image
from torch import nn

PRETRAIN = sorted(CONFIGS.glob('pretrain/*.py'))


def test_loss_is_the_cross_entropy_and_predictions_are_rows_of_logits():
    torch.manual_seed(0)
    model = SpikingClassifier(
        dict(type='HoyerVGG', depth=11, width=0.05, out_indices=(3,)),
        dict(type='SpikingReadout', num_classes=5),
    ).train()
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 4, 2])
    logits = model(images)
    (row,) = model.backbone(images)
    torch.testing.assert_close(logits, model.head.fcs[0](row.mean((2, 3))))
    wanted = -logits.double().log_softmax(1)[torch.arange(3), labels].mean()
    torch.testing.assert_close(model(images, labels, mode='loss')['loss'].double(), wanted)
    rows = model(images, mode='predict')
    assert len(rows) == 3 and rows[0].shape == (5,)


def test_hidden_layers_read_spikes():
    head = SpikingReadout(4, 6, pool_size=2, hidden=(10,), input_act=True, bias=False)
    assert [tuple(layer.weight.shape) for layer in head.fcs] == [(10, 16), (6, 10)]
    assert all(layer.bias is None for layer in head.fcs)
    seen = []
    for layer in head.fcs:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head.train()(torch.randn(3, 4, 6, 6))
    assert all(set(x.unique().tolist()) == {0.0, 1.0} for x in seen)
    with pytest.raises(ValueError, match='dropout'):
        SpikingReadout(4, 6, dropout=1.0)


def test_cifar_backbones_take_and_give_the_weights_of_the_usual_ones():
    vgg = HoyerVGGCIFAR(16, width=0.1, out_indices=(3, 4))
    assert vgg.state_dict().keys() == HoyerVGG(16, width=0.1, out_indices=(4,)).state_dict().keys()
    assert [f.shape[2:] for f in vgg(torch.rand(2, 3, 32, 32))] == [(2, 2), (2, 2)]
    assert vgg.out_strides == (16, 16)
    resnet = HoyerResNetCIFAR(18, base_channels=4, out_indices=(0, 3), bias_spread=0.5)
    assert [f.shape[2:] for f in resnet(torch.rand(2, 3, 32, 32))] == [(16, 16), (2, 2)]
    assert resnet.out_strides == (2, 16)
    usual = HoyerResNet(18, base_channels=4, out_indices=(0, 3)).state_dict()
    own = resnet.state_dict()
    assert {n for n in own.keys() ^ usual.keys() if not n.startswith('stem.')} == set()
    assert own['stem.norm.bias'].abs().max() > 0
    with pytest.raises(ValueError, match='ssd_tail'):
        HoyerVGGCIFAR(16, ssd_tail=True)


@pytest.mark.parametrize('path', PRETRAIN, ids=lambda path: path.stem)
def test_every_config_builds_and_its_backbone_fits_the_detectors(path: Path, voc_folder: Path):
    options = {'data_root': str(voc_folder)} if path.stem.startswith('objects') else {}
    cfg = load_config(path, options)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert spiking_layers(model) and not any(isinstance(m, nn.ReLU) for m in model.modules())
    detector = {
        'imagenet_hoyer_vgg16': 'hoyer_ssd_voc',
        'cifar10_hoyer_vgg16': 'hoyer_ssd_coco',
        'digits_hoyer_vgg11': 'hoyer_ssd_shapes',
        'objects_hoyer_vgg11': 'hoyer_ssd_vocformat',
        'imagenet_hoyer_resnet18': 'hoyer_retinanet_r18_voc',
        'imagenet_hoyer_resnet50': 'hoyer_faster_rcnn_r50_coco',
    }.get(path.stem)
    if detector is None:
        return
    with torch.device('meta'):
        cfg = load_config(CONFIGS / f'{detector}.py', options)
        backbone = MODELS.build(cfg.model).backbone
    own = {name: value.shape for name, value in model.backbone.state_dict().items()}
    theirs = {name: value.shape for name, value in backbone.state_dict().items()}
    neurons = ('.running_extremum', '.running_weight')
    for name in own.keys() & theirs.keys():
        # The classifiers of ResNets average the extremum by layer, some detectors by channel.
        if not (name.endswith(neurons) and 'resnet' in path.stem):
            assert own[name] == theirs[name], name
    assert own.keys() <= theirs.keys()
    rest = {name.split('.')[0] + '.' + name.split('.')[1] for name in theirs.keys() - own.keys()}
    assert rest <= {'stages.5', 'outputs.0', 'outputs.1', 'outputs.2', 'outputs.3'}


def test_recipes_are_those_of_the_issue():
    vgg = load_config(CONFIGS / 'pretrain' / 'imagenet_hoyer_vgg16.py')
    assert vgg.optim_wrapper.optimizer == dict(type='Adam', lr=1e-4, weight_decay=5e-4)
    assert vgg.train_cfg.max_epochs == 150
    warm_up, steps = vgg.param_scheduler
    assert (warm_up.end, warm_up.by_epoch) == (1000, False)
    assert (steps.milestones, steps.gamma) == ([90, 120, 135], 0.2)
    assert vgg.train_dataloader.batch_size * 8 == vgg.auto_scale_lr.base_batch_size == 512
    resnet = load_config(CONFIGS / 'pretrain' / 'imagenet_hoyer_resnet50.py')
    assert resnet.optim_wrapper.optimizer.lr == 5e-4
    with torch.device('meta'):
        neurons = spiking_layers(MODELS.build(vgg.model)).items()
        assert {n.extremum for name, n in neurons if name.startswith('backbone')} == {'channel'}
        others = spiking_layers(MODELS.build(resnet.model)).values()
    assert {n.extremum for n in others} == {'layer'}
    assert {n.saturated for _, n in neurons} == {'clip'}  # as in the detectors
    cifar = load_config(CONFIGS / 'pretrain' / 'cifar10_hoyer_vgg16.py')
    assert cifar.optim_wrapper.optimizer.amsgrad and cifar.train_cfg.max_epochs == 600
    sgd = load_config(CONFIGS / 'pretrain' / 'cifar10_hoyer_resnet18.py').optim_wrapper.optimizer
    assert (sgd.type, sgd.lr) == ('SGD', 0.1)


def test_digits_are_split_without_overlap():
    train, test = DigitsDataset([]), DigitsDataset([dict(type='Resize', size=32)], test_mode=True)
    assert (len(train), len(test)) == (1437, 360)
    item = test[0]
    assert item['inputs'].shape == (3, 32, 32) and item['inputs'].dtype == torch.uint8
    assert item['data_samples'] == 0 and test.metainfo['classes'] == tuple('0123456789')
    pixels = torch.stack([train[i]['inputs'] for i in range(len(train))])
    assert pixels.max() == 255 and pixels.min() == 0
    sklearn = pytest.importorskip('sklearn.datasets').load_digits()
    assert [test[i]['data_samples'] for i in range(360)] == sklearn.target[::5].tolist()
    wanted = (sklearn.images[1] * 255 / 16).astype(np.uint8)
    assert np.array_equal(train[0]['inputs'][2].numpy(), wanted)


def test_folder_of_images_with_transforms_of_torchvision(tmp_path: Path):
    for label, name in enumerate(('ant', 'bee')):
        folder = tmp_path / 'train' / name
        folder.mkdir(parents=True)
        Image.new('RGB', (40, 30), (10, 100 * label, 0)).save(folder / 'a.png')
    transforms = [dict(type='RandomResizedCrop', size=16), dict(type='RandomHorizontalFlip')]
    data = TorchvisionDataset('ImageFolder', str(tmp_path), transforms, folder='train')
    assert data.metainfo == dict(classes=('ant', 'bee')) and len(data) == 2
    item = data[1]
    assert item['inputs'].shape == (3, 16, 16) and item['data_samples'] == 1
    assert item['inputs'][:, 0, 0].tolist() == [10, 100, 0]  # RGB, not BGR
    with pytest.raises(
        FileNotFoundError, match=r'val: torchvision finds no ImageFolder.*data_root'
    ):
        TorchvisionDataset('ImageFolder', str(tmp_path), [], folder='val')
    with pytest.raises(FileNotFoundError, match='no CIFAR10 there'):
        TorchvisionDataset('CIFAR10', str(tmp_path), [])
    with pytest.raises(ValueError, match="v2 has no 'Flap'"):
        TorchvisionDataset('ImageFolder', str(tmp_path), [dict(type='Flap')], folder='train')
    with pytest.raises(ValueError, match="no 'CIFAR11'"):
        TorchvisionDataset('CIFAR11', str(tmp_path), [])


def accuracies(logits: list, labels: list) -> dict:
    metric = TopKAccuracy((1, 2))
    metric.process(dict(data_samples=torch.tensor(labels)), [torch.tensor(row) for row in logits])
    return metric.evaluate(len(labels))


def test_accuracy_by_hand():
    logits = [[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 5.0, 1.0]]
    assert accuracies(logits, [0, 1, 2, 1]) == {'top1': 0.5, 'top2': 0.75}


def test_a_network_that_says_nothing_scores_nothing():
    assert accuracies([[0.0, 0.0, 0.0]] * 3, [0, 1, 2]) == {'top1': 0.0, 'top2': 0.0}
    assert accuracies([[float('nan')] * 3], [0]) == {'top1': 0.0, 'top2': 0.0}


def test_neurons_of_a_config_are_told_their_channels():
    head = SpikingReadout(4, 6, hidden=(10,), act_cfg=dict(type='HoyerSpike', extremum='channel'))
    assert isinstance(head.acts[0], HoyerSpike) and head.acts[0].running_extremum.numel() == 10
