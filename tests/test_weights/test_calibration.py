"""CalibrateThresholdsHook: the rate that theory gives, the order of layers, the runner."""

import itertools

import pytest
import torch
from hoyer_det.spiking import HoyerSpike
from hoyer_det.weights import CalibrateThresholdsHook
from hoyer_det.weights.calibration import best_threshold
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

_names = itertools.count()


@pytest.mark.parametrize('extremum', ['layer', 'channel', 'fixed'])
def test_normal_potentials_make_27_percent_fire(extremum):
    # The best 1-bit picture of ReLU(u) fires above the t that maximises pdf(t)^2 / P(u > t): 0.612.
    draw = torch.Generator().manual_seed(0)
    potential = 3 * torch.randn(8, 4, 50, 50, generator=draw)
    layer = HoyerSpike(4, extremum=extremum)
    layer.threshold.requires_grad_(False)
    layer.threshold.fill_(best_threshold(layer, potential, candidates=80))
    rate = layer(potential).mean().item()
    assert rate == pytest.approx(0.2703, abs=0.01)


def test_two_levels_are_told_apart():
    # 0, 1 and 10: the spikes nearest to these are those of the 10 alone.
    potential = torch.tensor([0.0] * 10 + [1.0] * 20 + [10.0] * 5).view(1, 1, -1)
    layer = HoyerSpike(extremum='fixed')
    layer.threshold.requires_grad_(False)
    best = best_threshold(layer, potential, candidates=20)
    assert 1 < best <= 10


def test_silent_layer_has_no_threshold():
    assert best_threshold(HoyerSpike(), -torch.ones(1, 1, 4), 5) is None


class Chain(BaseModel):
    """Norm -> neuron -> convolution -> neuron; a frozen norm and a silent neuron besides."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2, momentum=0.3)
        self.first = HoyerSpike()
        self.conv = nn.Conv2d(2, 3, 3, bias=False)
        self.second = HoyerSpike()
        self.silent = HoyerSpike()
        self.frozen = nn.BatchNorm2d(3)
        nn.init.uniform_(self.conv.weight, -1, 1, generator=torch.Generator().manual_seed(0))

    def train(self, mode: bool = True) -> 'Chain':
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.frozen(self.conv(self.first(self.norm(inputs))))
        y = self.second(x)
        return dict(loss=y.mean() + self.silent(-x.abs() - 1).mean()) if mode == 'loss' else y


def run(model: BaseModel, tmp_path, hook: CalibrateThresholdsHook, **settings) -> Runner:
    draw = torch.Generator().manual_seed(3)
    data = [dict(inputs=5 + 2 * torch.randn(2, 8, 8, generator=draw)) for _ in range(8)]
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=DataLoader(data, batch_size=4),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        custom_hooks=[hook],
        default_hooks=dict(logger=None, checkpoint=None),
        experiment_name=f'calibration-{next(_names)}',
        **settings,
    )
    return runner


def calibrate(tmp_path, **settings) -> tuple[Chain, torch.Tensor]:
    model, hook = Chain(), CalibrateThresholdsHook(batches=2)
    runner = run(model, tmp_path, hook, **settings)
    runner.train_loop  # noqa: B018  built when first asked for
    hook.before_train(runner)
    return model, torch.stack([item['inputs'] for item in runner.train_dataloader.dataset])


def test_layers_are_calibrated_in_their_order_and_averages_taken_anew(tmp_path):
    model, inputs = calibrate(tmp_path)
    assert model.first.threshold.item() != 1 and model.second.threshold.item() != 1
    assert model.silent.threshold.item() == 1
    # The norm's averages are those of the two batches, one after the other, and its momentum is back.
    batches = inputs.split(4)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(model.norm.running_mean, means, rtol=1e-5, atol=1e-5)
    assert model.norm.momentum == 0.3
    assert model.frozen.num_batches_tracked == 0
    # By hand: the second layer's threshold on what the first, calibrated, sends.
    reference = Chain().train()
    thresholds = []
    with torch.no_grad():
        for batch in batches:
            potential = reference.norm(batch)
            first = best_threshold(reference.first, potential, 20)
            reference.first.threshold.fill_(first)
            sent = reference.frozen(reference.conv(reference.first(potential)))
            thresholds.append(torch.stack([first, best_threshold(reference.second, sent, 20)]))
    wanted = torch.stack(thresholds).mean(0)
    found = torch.stack([model.first.threshold, model.second.threshold]).detach()
    torch.testing.assert_close(found, wanted)
    for layer in (model.first, model.second):
        assert layer.running_weight.item() == pytest.approx(1 - 0.9**2)
    # In evaluation the network spikes from the first image on.
    with torch.no_grad():
        assert 0.05 < model.eval()(inputs).mean() < 0.6


def test_training_goes_on_from_the_calibrated_thresholds(tmp_path):
    model = Chain()
    run(model, tmp_path, CalibrateThresholdsHook(batches=1)).train()
    alone, _ = Chain(), None
    assert model.first.threshold.item() != alone.first.threshold.item()


def test_resumed_run_is_left_alone(tmp_path):
    model, hook = Chain(), CalibrateThresholdsHook()
    runner = run(model, tmp_path, hook)
    runner.train_loop._iter = 5
    hook.before_train(runner)
    assert model.first.threshold.item() == 1 and model.norm.num_batches_tracked == 0


def test_wrong_use_is_refused(tmp_path):
    with pytest.raises(ValueError, match='batches=0'):
        CalibrateThresholdsHook(batches=0)
    hook = CalibrateThresholdsHook()
    model = Chain()
    for name in ('first', 'second', 'silent'):
        setattr(model, name, nn.ReLU())
    runner = run(model, tmp_path, hook)
    with pytest.raises(ValueError, match='no HoyerSpike'):
        runner.train_loop  # noqa: B018
        hook.before_train(runner)
