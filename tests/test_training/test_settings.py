"""The check of settings lets pass what is right."""

from collections.abc import Callable
from typing import Any

import pytest
from hoyer_det.config import load_config
from hoyer_det.shipped import config_names
from hoyer_det.training.settings import check_settings
from mmengine.config import Config


@pytest.mark.slow
@pytest.mark.parametrize('command', ['train', 'test'])
def test_shipped_configs_pass(command: str) -> None:
    for name in config_names():
        check_settings(load_config(name, complete=False), command)


@pytest.mark.parametrize(
    'edit',
    [
        lambda cfg: cfg.pop('param_scheduler'),
        lambda cfg: cfg.update(val_dataloader=None, val_cfg=None, val_evaluator=None),
        lambda cfg: cfg.default_hooks.checkpoint.update(interval=-1),
        lambda cfg: cfg.randomness.update(seed=None),
        lambda cfg: cfg.optim_wrapper.update(clip_grad=None, accumulative_counts=4),
        lambda cfg: cfg.update(param_scheduler=dict(type='StepLR', step_size=3, by_epoch=True)),
        lambda cfg: cfg.update(
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=50, val_interval=1000)
        ),
    ],
)
def test_what_is_unusual_but_right_passes(edit: Callable[[Any], object]) -> None:
    cfg: Config = load_config('hoyer_ssd_vocformat', complete=False)
    edit(cfg)
    check_settings(cfg, 'train')
