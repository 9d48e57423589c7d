"""Objects cut out of a detection data set."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import CONFIGS, voc_object, write_split, write_voc_image
from hoyer_det.config import load_config
from hoyer_det.pretrain import ObjectCropsDataset
from mmdet.registry import DATASETS, MODELS
from mmengine.registry import init_default_scope
from PIL import Image


def detection(root: Path) -> dict:
    return dict(type='VOCFormatDataset', data_root=str(root))


@pytest.fixture
def two_objects(tmp_path: Path) -> Path:
    """Grey, 96 x 80; a white cell of 20 x 10 at (40, 30), a dot at the border, a difficult ring."""
    root = tmp_path / 'voc'
    hard = voc_object('ring', 10, 10, 60, 60)
    hard = hard.replace('<difficult>0</difficult>', '').replace(
        '</object>', '<difficult>1</difficult></object>'
    )
    boxes = [voc_object('cell', 41, 31, 61, 41), voc_object('dot', 1, 1, 17, 33), hard]
    write_voc_image(root, 'a', boxes, suffix='.png')
    image = np.full((80, 96, 3), 90, np.uint8)
    image[30:40, 40:60] = 255
    assert cv2.imwrite(str(root / 'JPEGImages' / 'a.png'), image)
    for split in ('trainval', 'test'):
        write_split(root, split, ['a'])
    return root


def test_an_object_is_cut_out_with_what_is_around_it(two_objects):
    data = ObjectCropsDataset(detection(two_objects), [], context=2.0)
    assert data.metainfo['classes'] == ('cell', 'dot', 'ring') and len(data) == 2
    cell, dot = (data[i] for i in range(2))
    assert (cell['data_samples'], dot['data_samples']) == (0, 1)
    # A square of 40 around (50, 35): the object is in the middle of it.
    assert cell['inputs'].shape == (3, 40, 40)
    white = torch.zeros(40, 40, dtype=torch.bool)
    white[15:25, 10:30] = True
    assert torch.equal(cell['inputs'] == 255, white.expand(3, -1, -1))
    # Around (8, 16), 64 a side: what is outside the image is missing.
    assert dot['inputs'].shape == (3, 48, 40)


def test_objects_of_wrapped_data_sets(two_objects):
    mixed = dict(type='MultiImageMixDataset', dataset=detection(two_objects), pipeline=[])
    assert len(ObjectCropsDataset(mixed, [])) == 2
    both = dict(type='ConcatDataset', datasets=[detection(two_objects)] * 2)
    assert len(ObjectCropsDataset(dict(type='RepeatDataset', times=3, dataset=both), [])) == 12


def test_a_turned_photograph_is_turned_back(two_objects):
    file = two_objects / 'JPEGImages' / 'a.png'
    with Image.open(file) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        image.rotate(90, expand=True).save(file, exif=exif)
    (cell, _) = ObjectCropsDataset(detection(two_objects), [], context=2.0)
    assert (cell['inputs'][:, 15:25, 10:30] == 255).all()


def test_an_image_is_read_as_detectors_read_it(two_objects):
    file = two_objects / 'JPEGImages' / 'a.png'
    image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    assert cv2.imwrite(str(file), image.astype(np.uint16) * 257)
    (cell, _) = ObjectCropsDataset(detection(two_objects), [], context=2.0)
    assert cell['inputs'].unique().tolist() == [90, 255]
    assert cv2.imwrite(str(file), image[::2, ::2])
    with pytest.raises(
        ValueError, match=r'a.png: the image is 48 x 40 pixels, its annotation says'
    ):
        next(iter(ObjectCropsDataset(detection(two_objects), [])))


def test_small_objects_are_left_out_and_none_is_refused(two_objects):
    assert len(ObjectCropsDataset(detection(two_objects), [], min_size=25)) == 1
    with pytest.raises(
        ValueError, match=r'trainval.txt: none of the objects of 1 images .* min_size'
    ):
        ObjectCropsDataset(detection(two_objects), [], min_size=50)


def test_config_takes_classes_and_splits_from_the_folder(two_objects):
    cfg = load_config(
        CONFIGS / 'pretrain' / 'objects_hoyer_vgg11.py', {'data_root': str(two_objects)}
    )
    assert cfg.model.head.num_classes == 3
    init_default_scope('mmdet')
    data = DATASETS.build(cfg.train_dataloader.dataset)
    batch = torch.stack([data[i]['inputs'] for i in range(2)]).float()
    model = MODELS.build(cfg.model)
    assert model(batch, torch.tensor([0, 1]), mode='loss')['loss'] > 0
