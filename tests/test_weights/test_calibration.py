"""CalibrateFromANNHook: the rate that theory gives, what convolutions read, the runner."""

import copy
import itertools

import pytest
import torch
from hoyer_det.backbones import HoyerVGG
from hoyer_det.spiking import HoyerSpike
from hoyer_det.weights import CalibrateFromANNHook, convert_from_ann
from hoyer_det.weights.matching import best_channel_scales, best_threshold, match_inputs, samples
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
    best = best_threshold(HoyerSpike(extremum='fixed'), potential, candidates=20)
    assert 1 < best <= 10


def test_silent_layer_has_no_threshold():
    assert best_threshold(HoyerSpike(), -torch.ones(1, 1, 4), 5) is None


@pytest.mark.parametrize('extremum', ['channel', 'fixed'])
def test_channels_of_other_scale_fire_alike(extremum):
    # The step that correlates best with ReLU(u) of a normal u fires above t = E[relu | o] / 2 +
    # E[relu | not o] / 2; found here by scanning t.
    draw = torch.Generator().manual_seed(1)
    potential = torch.randn(3, 20_000, generator=draw) * torch.tensor([[0.1], [1.0], [30.0]])
    scales = best_channel_scales(layer := HoyerSpike(3, extremum=extremum), potential, 200)
    with torch.no_grad():
        rates = layer((potential / scales[:, None])[None]).mean((0, 2))
    unit = potential[1]
    correlations = {
        t: torch.corrcoef(torch.stack([unit.clamp(min=0), (unit >= t).float()]))[0, 1].item()
        for t in torch.linspace(0.1, 2, 100).tolist()
    }
    best = max(correlations, key=correlations.get)
    torch.testing.assert_close(rates, (unit >= best).float().mean().expand(3), rtol=0, atol=0.03)


def test_channel_that_never_fires_keeps_its_scale():
    potential = torch.tensor([[-1.0, -2.0], [1.0, 2.0]])
    scales = best_channel_scales(HoyerSpike(2, extremum='channel'), potential, 4)
    assert scales[0] == 1 and scales[1] > 0


@pytest.mark.parametrize('groups', [1, 2])
def test_convolution_answers_with_the_same_mean_and_spread(groups):
    # One input channel per group in use: the answer is its multiple, so mean and spread carry over.
    draw = torch.Generator().manual_seed(2)
    relu = torch.rand(50, 2, 4, 4, generator=draw) * torch.tensor([3.0, 0.2]).view(1, 2, 1, 1)
    spikes = (torch.rand(50, 2, 4, 4, generator=draw) > 0.7).float()
    conv = nn.Conv2d(2, 4, 1, groups=groups).requires_grad_(False)
    if groups == 1:
        conv.weight[:, 1] = 0
    before = conv(relu)
    match_inputs(conv, samples(spikes), samples(relu), lambda value: value)
    after = conv(spikes)
    for statistic in (torch.mean, torch.std):
        torch.testing.assert_close(
            statistic(after, (0, 2, 3)), statistic(before, (0, 2, 3)), rtol=1e-3, atol=1e-4
        )


class Detector(BaseModel):
    """A narrow VGG and a read-out whose norm is none; the loss is its mean."""

    def __init__(self, spiking: bool, **vgg) -> None:
        super().__init__()
        act_cfg = dict(type='HoyerSpike', extremum='channel') if spiking else dict(type='ReLU')
        self.vgg = HoyerVGG(11, width=0.125, out_indices=(1,), act_cfg=act_cfg, **vgg)
        self.read = nn.Conv2d(16, 5, 1)
        self.init_weights()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        y = self.read(self.vgg(inputs)[0])
        return dict(loss=y.mean()) if mode == 'loss' else y


def run(model: BaseModel, tmp_path, hook: CalibrateFromANNHook) -> Runner:
    draw = torch.Generator().manual_seed(3)
    data = [dict(inputs=5 + 2 * torch.randn(3, 16, 16, generator=draw)) for _ in range(32)]
    return Runner(
        model,
        str(tmp_path),
        train_dataloader=DataLoader(data, batch_size=8),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        custom_hooks=[hook],
        default_hooks=dict(logger=None, checkpoint=None),
        experiment_name=f'calibration-{next(_names)}',
    )


def converted(tmp_path, **vgg) -> tuple[Detector, Detector, torch.Tensor]:
    """Return a ReLU network of unequal channels, the spiking one made from it, and the images."""
    torch.manual_seed(0)
    twin, model = Detector(spiking=False, **vgg), Detector(spiking=True, **vgg)
    with torch.no_grad():
        for norm in (m for m in twin.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.copy_(torch.logspace(-1, 1, norm.num_features))
    model.load_state_dict(twin.state_dict(), strict=False)
    runner = run(model, tmp_path, CalibrateFromANNHook(batches=4))
    runner.train()
    return twin, model, torch.stack([item['inputs'] for item in runner.train_dataloader.dataset])


@pytest.mark.parametrize('shortcut', [False, True])
def test_read_out_of_a_converted_network_follows_its_source(tmp_path, shortcut):
    twin, model, images = converted(tmp_path, shortcut=shortcut)
    with torch.no_grad():
        wanted, found = twin.train()(images), model.eval()(images)
    # Same means, and answers that go together, from the first image on and without any training.
    scale = wanted.std((0, 2, 3))
    assert ((wanted.mean((0, 2, 3)) - found.mean((0, 2, 3))).abs() < 0.25 * scale).all()
    pairs = torch.stack([wanted.flatten(), found.flatten()])
    assert torch.corrcoef(pairs)[0, 1] > 0.6
    thresholds = [layer.threshold for layer in model.modules() if isinstance(layer, HoyerSpike)]
    assert any(threshold != 1 for threshold in thresholds) == shortcut
    # All norms of a stream keep their units.
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    same = [torch.equal(a.weight, torch.logspace(-1, 1, a.num_features)) for a in norms]
    assert all(same) if shortcut else not any(same)


def test_frozen_stage_is_left_alone(tmp_path):
    twin, model, _ = converted(tmp_path, frozen_stages=1)
    for (name, found), wanted in zip(
        model.vgg.stages[0].state_dict().items(),
        Detector(spiking=True).vgg.stages[0].state_dict(),
        strict=True,
    ):
        assert name == wanted
        if name in twin.vgg.stages[0].state_dict():
            torch.testing.assert_close(found, twin.vgg.stages[0].state_dict()[name])


def test_resumed_run_is_left_alone(tmp_path):
    model, hook = Detector(spiking=True), CalibrateFromANNHook()
    runner = run(model, tmp_path, hook)
    runner.train_loop._iter = 5
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hook.before_train(runner)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_hook_of_a_shipped_config_leaves_other_weights_alone(tmp_path):
    model, hook = Detector(spiking=True), CalibrateFromANNHook(batches=1, only_from_ann=True)
    runner = run(model, tmp_path, hook)
    runner.train_loop  # noqa: B018
    before = copy.deepcopy(model.state_dict())
    hook.before_train(runner)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.vgg.init_cfg = dict(type='FromANN', checkpoint='any')
    runner._load_from = 'spiking.pth'
    hook.before_train(runner)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    runner._load_from = None
    hook.before_train(runner)
    assert not torch.equal(model.read.weight, before['read.weight'])


def test_wrong_use_is_refused(tmp_path):
    with pytest.raises(ValueError, match='batches=0'):
        CalibrateFromANNHook(batches=0)
    hook = CalibrateFromANNHook()
    runner = run(Detector(spiking=False), tmp_path, hook)
    with pytest.raises(ValueError, match='no HoyerSpike'):
        runner.train_loop  # noqa: B018
        hook.before_train(runner)


class Stream(BaseModel):
    """Norm -> neuron -> convolution, and the norm's output itself besides: the stem of a ResNet."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.shared = shared
        self.norm = nn.BatchNorm2d(3)
        self.act = HoyerSpike(3, extremum='channel')
        self.conv = nn.Conv2d(3, 3, 1, bias=False)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.norm(inputs)
        y = self.conv(self.act(x))
        y = y + x if self.shared else y
        return dict(loss=y.mean()) if mode == 'loss' else y


@pytest.mark.parametrize('shared', [True, False])
def test_norm_is_scaled_only_where_the_neuron_alone_reads_it(shared):
    draw = torch.Generator().manual_seed(5)
    model = Stream(shared)
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([0.5, 1.0, 8.0]))
    before = model.norm.weight.clone()
    summary = convert_from_ann(model, [dict(inputs=torch.randn(16, 3, 8, 8, generator=draw))])
    assert torch.equal(model.norm.weight, before) == shared
    assert ('0 neurons by channel, 1 by layer' in summary) == shared
    if not shared:  # all channels now fire at the same quantile
        torch.testing.assert_close(
            model.norm.weight, model.norm.weight[:1].expand(3), rtol=0.2, atol=0
        )
    assert not model.norm._forward_hooks and not model.act._forward_pre_hooks


def test_kernels_by_hand_on_two_layers():
    # Where a ReLU channel is 0 or h, its kernel counts h times once it spikes, and nothing else changes.
    model = Stream(shared=False)
    model.conv = nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([1.0, 1.0, 1.0]))
        model.conv.weight.fill_(1.0)
        model.conv.bias.fill_(0.5)
    places = torch.arange(64).view(1, 1, 8, 8)
    on = torch.cat([places % 2 == 0, places % 4 == 0, places % 4 != 0], 1)
    inputs = on.float()
    # The norm gives mean 0, deviation 1: channels are 1 / 0, sqrt(3) / 0 and 1 / sqrt(3) / 0 after ReLU.
    heights = [1.0, 3**0.5, 3**-0.5]
    convert_from_ann(model, [dict(inputs=inputs)])
    assert model.conv.weight.flatten().tolist() == pytest.approx(heights, rel=1e-3)
    assert model.conv.bias.item() == pytest.approx(0.5, abs=1e-3)  # 0 stays 0
    with torch.no_grad():
        found = model.train()(inputs).flatten()
    wanted = 0.5 + (on.flatten(2)[0].float() * torch.tensor(heights)[:, None]).sum(0)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
