"""Learning rates by stage, and the floor under the thresholds."""

import pytest
import torch
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.spiking import HoyerSpike, spiking_layers
from hoyer_det.weights import StagewiseLRConstructor, ThresholdFloorHook
from mmdet.registry import HOOKS, MODELS
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.testing import assert_allclose
from torch import nn
from torch.utils.data import DataLoader


def groups(name: str, **paramwise: object) -> dict[str, dict]:
    cfg = load_config(CONFIGS / f'{name}.py')
    cfg.optim_wrapper.paramwise_cfg.update(paramwise)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    paramwise_cfg = cfg.optim_wrapper.pop('paramwise_cfg')
    made = StagewiseLRConstructor(cfg.optim_wrapper, paramwise_cfg)(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(g['params'][0])]: g for g in made.optimizer.param_groups}


def test_rates_fall_from_the_head_to_the_image_and_decay_stays_off_where_it_was():
    found = groups('hoyer_ssd_shapes', stage_lr_decay=0.5)
    base = 2e-3
    for name, level in (('neck', 0), ('bbox_head', 0), ('backbone.stages.5', 1)):
        rates = {g['lr'] for n, g in found.items() if n.startswith(f'{name}.')}
        assert rates == {base * 0.5**level}
    for stage in range(6):
        rates = {g['lr'] for n, g in found.items() if n.startswith(f'backbone.stages.{stage}.')}
        assert rates == {base * 0.5 ** (6 - stage)}
    for name, group in found.items():
        off = name.endswith(('.threshold', '.bias')) or '.norm.' in name
        assert group['weight_decay'] == (0 if off else 0.05), name


def test_stem_of_a_resnet_is_a_stage_and_its_outputs_are_none():
    found = groups('hoyer_retinanet_r18_voc', stage_lr_decay=0.1)
    rates = {name: group['lr'] for name, group in found.items()}
    top = max(rates.values())
    assert_allclose(rates['backbone.stem.conv.weight'], top * 1e-5)
    assert_allclose(rates['backbone.stages.3.1.conv.weight'], top * 0.1)
    assert {rate for name, rate in rates.items() if name.startswith('backbone.outputs.')} == {top}


@pytest.mark.parametrize('decay', [None, 0.0, 1.5])
def test_wrong_decay_is_refused(decay):
    with pytest.raises(ValueError, match='stage_lr_decay must lie'):
        groups('hoyer_ssd_shapes', stage_lr_decay=decay)


def test_model_without_stages_is_refused():
    wrapper = dict(optimizer=dict(type='SGD', lr=1.0))
    with pytest.raises(ValueError, match='no parameters backbone.stages'):
        StagewiseLRConstructor(wrapper, dict(stage_lr_decay=0.5))(nn.Linear(2, 2))


class Sinking(BaseModel):
    """Thresholds of both signs: two that move by 0.3 a step towards 0 and across it, two that stay."""

    def __init__(self) -> None:
        super().__init__()
        self.sinks, self.rises = HoyerSpike(threshold=1.0), HoyerSpike(threshold=-1.0)
        self.stays, self.negative = HoyerSpike(threshold=2.0), HoyerSpike(threshold=-1.3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        moving = 0.3 * (self.sinks.threshold - self.rises.threshold)
        return dict(loss=moving + 0 * (self.stays.threshold + self.negative.threshold))


@pytest.mark.parametrize('hooks, lowest', [([], -0.2), ([ThresholdFloorHook(0.05)], 0.05)])
def test_magnitudes_stay_above_the_floor_and_signs_as_they_were(hooks, lowest, tmp_path):
    model = Sinking()
    Runner(
        model,
        str(tmp_path),
        train_dataloader=DataLoader([dict(inputs=torch.zeros(1))] * 4),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        custom_hooks=hooks,
        default_hooks=dict(logger=None, checkpoint=None),
        experiment_name=f'floor-{len(hooks)}',
    ).train()
    assert model.sinks.threshold.item() == pytest.approx(lowest, abs=1e-6)
    assert model.rises.threshold.item() == pytest.approx(-lowest, abs=1e-6)
    assert model.stays.threshold.item() == 2
    assert model.negative.threshold.item() == pytest.approx(-1.3)


def test_floor_must_be_positive():
    with pytest.raises(ValueError, match='minimum must be positive'):
        ThresholdFloorHook(0.0)


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
