"""``hoyer-det test --tta``: what the pipeline and the model become."""

import pytest
from hoyer_det.commands.test import add_tta
from mmengine.config import ConfigDict

KEYS = ('img_path', 'scale_factor')
LOAD = dict(type='LoadImageFromFile')


def config(pack: dict, wrapped: bool = False, **more: object) -> ConfigDict:
    dataset = dict(type='Any', pipeline=[LOAD, pack])
    if wrapped:
        dataset = dict(type='RepeatDataset', dataset=dataset)
    return ConfigDict(model=dict(type='SSD'), test_dataloader=dict(dataset=dataset), **more)


@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize('keys, packed', [(KEYS, (*KEYS, 'flip', 'flip_direction')), (None, None)])
def test_each_image_is_seen_flipped_and_not(keys, packed, wrapped):
    pack = (
        dict(type='PackDetInputs') if keys is None else dict(type='PackDetInputs', meta_keys=keys)
    )
    cfg = config(pack, wrapped)
    add_tta(cfg)
    dataset = cfg.test_dataloader.dataset
    load, augment = (dataset.dataset if wrapped else dataset).pipeline
    flips, (last,) = augment.transforms
    assert load == LOAD and [flip.prob for flip in flips] == [1.0, 0.0]
    assert last.type == 'PackDetInputs' and last.get('meta_keys') == packed
    assert cfg.model.type == 'DetTTAModel' and cfg.model.module == dict(type='SSD')


def test_the_configs_own_augmentation_is_taken():
    own = [LOAD, dict(type='TestTimeAug', transforms=[])]
    cfg = config(dict(type='PackDetInputs'), tta_pipeline=own, tta_model=dict(type='OwnTTAModel'))
    add_tta(cfg)
    assert cfg.test_dataloader.dataset.pipeline == own and cfg.model.type == 'OwnTTAModel'
