"""Every experiment in configs/: its data pipelines, and its network, narrow: training and prediction."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import CONFIGS, voc_object, write_split, write_voc_image
from hoyer_det.config import load_config
from hoyer_det.spiking import spiking_layers
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from narrow import narrow_model, random_items, values_read
from torch import nn

EXPERIMENTS = sorted(path.stem for path in CONFIGS.glob('hoyer_*.py'))
DOWNLOADED = [name for name in EXPERIMENTS if name.endswith(('_voc', '_coco'))]
# One of each network: COCO's differ in the number of classes, the other sizes in the images alone.
NETWORKS = [
    name
    for name in EXPERIMENTS
    if not ('_coco' in name and name.replace('_coco', '_voc') in EXPERIMENTS)
    and not any(size in name for size in ('ssd512', '320', '608'))
]
STEMS = {
    'HoyerVGG': 'backbone.stages.0.0.conv',
    'HoyerResNet': 'backbone.stem.conv',
    'Darknet': 'backbone.conv1.conv',
}
# Of these, some convolutions read more than 0 and 1: DarkNet's sums of spikes; what RoIAlign averages.
PARTLY_REAL = ('d53', 'faster_rcnn')


@pytest.fixture(scope='module')
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('VOCdevkit')
    for year in ('VOC2007', 'VOC2012'):
        write_voc_image(
            root / year, '000001', [voc_object('dog'), voc_object('person', 5, 5, 12, 14)]
        )
        write_split(root / year, 'trainval', ['000001'])
        write_split(root / year, 'test', ['000001'])
    return root


@pytest.fixture(scope='module')
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('coco')
    (root / 'annotations').mkdir()
    draw = np.random.default_rng(0)
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        images = [dict(id=1, file_name='1.jpg', width=96, height=80)]
        pixels = draw.integers(0, 255, (80, 96, 3), np.uint8)
        assert cv2.imwrite(str(root / split / '1.jpg'), pixels)
        boxes = [(0, 18, [10, 20, 50, 50]), (1, 1, [4, 4, 8, 10])]
        annotations = [
            dict(id=i, image_id=1, category_id=c, bbox=box, area=box[2] * box[3], iscrowd=0)
            for i, c, box in boxes
        ]
        categories = [dict(id=1, name='person'), dict(id=18, name='dog')]
        file = root / 'annotations' / f'instances_{split}.json'
        file.write_text(
            json.dumps(dict(images=images, annotations=annotations, categories=categories))
        )
    return root


def own_data(name: str, voc_folder: Path, coco: Path) -> dict[str, str]:
    """The option that a config for data of one's own needs."""
    folder = dict(vocformat=voc_folder, cocoformat=coco).get(name.split('_')[-1])
    return {'data_root': str(folder)} if folder else {}


@pytest.fixture
def config(request: pytest.FixtureRequest, voc_folder: Path, coco: Path) -> Config:
    name = request.param
    return load_config(CONFIGS / f'{name}.py', own_data(name, voc_folder, coco))


@pytest.mark.parametrize('name', DOWNLOADED)
def test_pipelines_keep_small_boxes_and_fit_the_named_size(name, request):
    root = request.getfixturevalue('devkit' if name.endswith('_voc') else 'coco')
    cfg = load_config(CONFIGS / f'{name}.py', {'data_root': str(root)})
    torch.manual_seed(0)
    np.random.seed(0)
    train = DATASETS.build(cfg.train_dataloader.dataset)
    # MMDetection's own VOC base drops objects under 32 px; none is lost here, before cropping.
    inner = train
    while hasattr(inner, 'dataset') or hasattr(inner, 'datasets'):
        inner = inner.dataset if hasattr(inner, 'dataset') else inner.datasets[0]
    assert [item['ignore_flag'] for item in inner.get_data_info(0)['instances']] == [0, 0]
    side = max(np.ravel(cfg.get('input_size', 1333)))
    for index in range(min(len(train), 4)):
        item = train[index]
        assert max(item['inputs'].shape[1:]) <= side
        assert len(item['data_samples'].gt_instances) >= 1
    tested = DATASETS.build(cfg.test_dataloader.dataset)[0]
    # The boxes of the ground truth keep the size of the original image of 96x80.
    boxes = [instance['bbox'] for instance in tested['data_samples'].instances]
    assert sorted(map(len, boxes)) == [4, 4] and np.max(boxes) <= 96
    assert side * 0.59 <= max(tested['inputs'].shape[1:]) <= side


@pytest.mark.parametrize(
    'config',
    [pytest.param(n, marks=[pytest.mark.slow] if 'd53' in n else []) for n in NETWORKS],
    indirect=True,
    ids=NETWORKS,
)
def test_network_trains_and_all_but_the_stem_reads_spikes(config, request):
    name = request.node.callspec.id
    model, side = narrow_model(config)
    batch = pseudo_collate(random_items(2, side))
    losses = model.train()(**model.data_preprocessor(batch, True), mode='loss')
    model.parse_losses(losses)[0].backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
    assert {layer.training for layer in spiking_layers(model).values()} == {True}
    model.eval()
    results = []
    read = values_read(model, lambda: results.extend(model.test_step(batch)))
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sorted(read) == sorted(layers)
    stem = STEMS[config.model.get('detector', config.model).backbone.type]
    assert next(iter(read)) == stem and len(read.pop(stem)) == 3
    real = [key for key, values in read.items() if not set(values) <= {0, 1}]
    if any(part in name for part in PARTLY_REAL):
        allowed = r'backbone\.conv_res_block|neck\.detect\d\.conv1\.|rpn_head\.|roi_head\.'
        assert real and all(re.match(allowed, key) for key in real)
        assert all(value == round(value) for key in real if 'd53' in name for value in read[key])
    else:
        assert not real
    assert len(results) == 2 and all('bboxes' in r.pred_instances for r in results)


@pytest.mark.parametrize('name', ['ssd_voc', 'yolov3_voc', 'retinanet_r18_voc'])
def test_relu_twins_would_not_pass_for_spiking(name):
    model, side = narrow_model(load_config(CONFIGS / f'hoyer_{name}.py', twin='relu'))
    batch = pseudo_collate(random_items(2, side))
    read = values_read(model.eval(), lambda: model.test_step(batch))
    assert all(len(values) == 3 for key, values in read.items() if key.startswith('backbone'))
