"""CheckFiniteHook: no checkpoint with a NaN, for spiking detectors and their twins."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hoyer_det.engine import CheckFiniteHook
from hoyer_det.engine.finite_hook import first_nonfinite
from mmengine.hooks import EMAHook, Hook, LoggerHook
from tiny_ssd import Watch, build_ssd, train

WEIGHT = 'backbone.stages.2.0.conv.weight'
SLOW = dict(optimizer=dict(type='SGD', lr=0.001))


class Set(Hook):
    """Sets one entry of a parameter, or of the optimizer's state, before an iteration."""

    def __init__(self, value: float, at: int = 0, name: str = WEIGHT) -> None:
        self.value, self.at, self.name = value, at, name

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.at:
            runner.model.get_parameter(self.name).data.view(-1)[0] = self.value


def saving(interval: int = 1) -> dict:
    return dict(type='CheckpointHook', by_epoch=False, interval=interval)


@pytest.mark.parametrize('act', ['HoyerSpike', 'ReLU'])
def test_weight_is_named_at_the_next_check_and_no_checkpoint_is_written(tmp_path, act):
    watch = Watch()
    # Set behind the second step, so that the losses stay finite up to the checkpoint.
    name = 'bbox_head.reg_convs.0.0.weight'
    model = build_ssd(act)
    model.get_parameter(name).requires_grad = False

    class Late(Hook):
        def after_train_iter(self, runner, *args, **kwargs) -> None:
            if runner.iter == 1:
                runner.model.get_parameter(name).data.fill_(float('inf'))

    hooks = [Late(), watch, CheckFiniteHook(interval=3), saving()]
    with pytest.raises(
        FloatingPointError,
        match=rf'^No checkpoint is written: state_dict\.{name} is NaN or inf at iteration 2;',
    ):
        train(model, hooks, tmp_path, 5, **SLOW)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_1.pth']
    assert (tmp_path / 'last_checkpoint').read_text().endswith('iter_1.pth')


@pytest.mark.parametrize(
    ('interval', 'iters', 'noticed'), [(3, 5, 3), (1, 5, 1), (50, 2, 2)], ids=['3rd', '1st', 'last']
)
def test_loss_is_named_at_the_next_check(tmp_path, interval, iters, noticed):
    watch = Watch()
    hooks = [
        Set(float('nan'), 0, 'bbox_head.cls_convs.0.0.weight'),
        watch,
        CheckFiniteHook(interval),
    ]
    with pytest.raises(FloatingPointError, match=rf'^loss_cls is NaN .* iteration {noticed};'):
        train(build_ssd('ReLU'), hooks, tmp_path, iters, **SLOW)
    assert len(watch.logs) == noticed


def test_state_of_the_optimizer_and_the_average_count_too(tmp_path):
    # The square of a gradient of 1e30 is beyond float32, and the weight stands still from then on.
    class Steep(Hook):
        def before_train(self, runner) -> None:
            runner.model.get_parameter(WEIGHT).register_hook(lambda grad: grad * 0 + 1e30)

    hooks = [Steep(), CheckFiniteHook(), saving()]
    with pytest.raises(
        FloatingPointError, match=r'written: optimizer\.state\.\d+\.exp_avg_sq is NaN or inf'
    ):
        train(build_ssd(), hooks, tmp_path / 'adam', optimizer=dict(type='Adam', lr=1e-4))

    class Late(Hook):
        priority = 'LOW'

        def after_train_iter(self, runner, *args, **kwargs) -> None:
            (average,) = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
            average.ema_model.module.get_parameter(WEIGHT).data.fill_(float('nan'))

    hooks = [CheckFiniteHook(), Late(), EMAHook(), saving()]
    with pytest.raises(FloatingPointError, match=rf'written: state_dict\.{WEIGHT} is NaN'):
        train(build_ssd(), hooks, tmp_path / 'ema', **SLOW)
    assert not list(tmp_path.rglob('*.pth'))


def test_every_epoch_ends_with_a_check_of_the_weights():
    model = build_ssd('ReLU')
    hook = CheckFiniteHook()
    runner = SimpleNamespace(model=model, iter=7, hooks=[LoggerHook(interval=9)])
    hook.before_train(runner)
    assert hook.interval == 9
    hook.after_train_epoch(runner)
    model.backbone.stages[0][0].norm.running_var[0] = float('inf')
    with pytest.raises(FloatingPointError, match=r'^backbone\.stages\.0\.0\.norm\.running_var is'):
        hook.after_train_epoch(runner)


def test_healthy_training_is_saved(tmp_path: Path):
    train(build_ssd(), [CheckFiniteHook(1), EMAHook(), saving()], tmp_path, 2, **SLOW)
    assert (tmp_path / 'iter_2.pth').is_file()


def test_large_numbers_whose_sum_overflows_are_finite():
    assert first_nonfinite({'a': [torch.full((9,), 1e308, dtype=torch.float64)]}) is None
    assert first_nonfinite({'a': torch.tensor([1, 2]), 'b': (1.0, 'x')}) is None
    assert first_nonfinite({'a': torch.zeros(2), 'b': {3: torch.tensor([-float('inf')])}}) == 'b.3'


def test_interval_must_be_positive():
    with pytest.raises(ValueError, match='CheckFiniteHook: interval must be at least 1'):
        CheckFiniteHook(0)
