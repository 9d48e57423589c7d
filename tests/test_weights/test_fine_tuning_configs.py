"""The configs of configs/pretrain/fine_tuning."""

import pytest
import torch
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.spiking import spiking_layers
from mmdet.registry import HOOKS, MODELS

RECIPES = sorted((CONFIGS / 'pretrain' / 'fine_tuning').glob('*.py'))


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_every_config_builds(path, voc_folder):
    options = {'data_root': str(voc_folder)} if 'vocformat' in path.name else {}
    cfg = load_config(path, options)
    with torch.device('meta'):
        assert spiking_layers(MODELS.build(cfg.model))
    for hook in cfg.custom_hooks:
        assert HOOKS.build(hook) is not None
    hooks = [hook['type'] for hook in cfg.custom_hooks]
    assert ('EMAHook' in hooks) != path.stem.startswith(('no_ema', 'lr_finder'))
    start = (cfg.model.backbone.get('init_cfg') or {}).get('type')
    assert ('CalibrateFromANNHook' in hooks) == (start == 'FromANN')


def test_learning_rate_finder_rises_from_1e_5_to_1(voc_folder):
    file = CONFIGS / 'pretrain' / 'fine_tuning' / 'lr_finder_ssd_vocformat.py'
    cfg = load_config(file, {'data_root': str(voc_folder)})
    assert cfg.train_cfg.val_interval > cfg.train_cfg.max_iters == 150
    (scheduler,) = cfg.param_scheduler
    assert cfg.optim_wrapper.optimizer.lr == 1e-5 and not scheduler.by_epoch
    assert cfg.optim_wrapper.optimizer.lr * scheduler.gamma**150 == pytest.approx(1.0)
