"""CenterPotentialsHook: what neurons read after it, what it leaves alone, the runner."""

import copy
import itertools

import pytest
import torch
from hoyer_det import config_path
from hoyer_det.backbones import HoyerVGG
from hoyer_det.backbones.shortcut import ShortcutConvBlock
from hoyer_det.config import load_config
from hoyer_det.spiking import HoyerSpike, record_spikes
from hoyer_det.weights import CenterPotentialsHook, center_potentials
from mmdet.engine.hooks import MeanTeacherHook
from mmdet.registry import MODELS
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

_names = itertools.count()
_GROUPS = dict(norm_cfg=dict(type='GN', num_groups=4))
_SPIKES = dict(type='HoyerSpike', extremum='channel', threshold=0.5)


class Detector(BaseModel):
    """A narrow VGG with shortcuts, and a read-out; the loss is its mean."""

    def __init__(self, act_cfg: dict | None = None, **vgg) -> None:
        super().__init__()
        vgg = dict(shortcut=True, bias_spread=1.0, act_cfg=act_cfg or _SPIKES, **vgg)
        self.vgg = HoyerVGG(11, width=0.125, out_indices=(3,), **vgg)
        self.read = nn.Conv2d(self.vgg.out_channels[0], 5, 1)
        self.init_weights()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        y = self.read(self.vgg(inputs)[0])
        return dict(loss=y.mean()) if mode == 'loss' else y


def images(number: int = 16) -> list[dict[str, Tensor]]:
    """Return smooth noise of 48 px, whose neighbouring pixels go together as in photographs."""
    draw = torch.Generator().manual_seed(3)
    coarse = torch.randn(number, 3, 12, 12, generator=draw)
    smooth = nn.functional.interpolate(coarse, scale_factor=4, mode='bilinear')
    return [dict(inputs=image) for image in smooth]


def batches() -> list[dict[str, Tensor]]:
    return list(DataLoader(images(), batch_size=4))


def potentials(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Return what each block hands on as its potential, in training mode."""
    found = []
    blocks = [m for m in model.modules() if isinstance(m, ShortcutConvBlock)]
    hooks = [b.register_forward_hook(lambda _, __, out: found.append(out[1])) for b in blocks]
    with torch.no_grad():
        copy.deepcopy(model).train()(inputs)
    for hook in hooks:
        hook.remove()
    return found


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_each_channel_has_the_mean_that_its_bias_drew_and_each_layer_its_deviation():
    torch.manual_seed(0)
    model = Detector()
    drawn = [block.norm.bias.clone() for block in model.vgg.modules() if hasattr(block, 'norm')]
    before = state(model)
    seen = []
    with record_spikes(model, lambda *spikes: seen.append(spikes)):
        assert center_potentials(model, iter(batches()), batches=4) == len(drawn) == 6
    assert not seen  # the rates that a run logs are those of its training
    inputs = torch.cat([batch['inputs'] for batch in batches()])
    layers = [m for m in model.modules() if isinstance(m, HoyerSpike)]
    for potential, bias, layer in zip(potentials(model, inputs), drawn, layers, strict=True):
        values = potential.double()
        deviation = values.var((0, 2, 3), unbiased=False).mean().sqrt()
        wanted = deviation * bias.double()
        torch.testing.assert_close(values.mean((0, 2, 3)), wanted, rtol=0, atol=2e-4)
        assert layer.threshold.item() == pytest.approx(0.5 * deviation.item(), rel=1e-4)
    # Nothing else has moved, running averages neither.
    for name, value in model.state_dict().items():
        if not name.endswith(('norm.bias', 'threshold')):
            assert torch.equal(value, before[name]), name


def test_groups_are_centred_and_a_second_pass_changes_nothing():
    class Twice(Detector):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            super().forward(inputs + 1)  # as on unlabelled or reference images
            return super().forward(inputs, data_samples, mode)

    models = []
    for kind in (Detector, Twice):
        torch.manual_seed(0)
        model = kind(**_GROUPS)
        shift = 1 if kind is Detector else 0
        inputs = [dict(inputs=batch['inputs'] + shift) for batch in batches()]
        assert center_potentials(model, inputs) == 6
        models.append(state(model))
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, msg=name)


def test_a_teacher_copies_the_centred_student(tmp_path):
    class Pair(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = Detector(), Detector().eval().requires_grad_(False)

        def forward(self, inputs, data_samples=None, mode='loss'):
            return self.student(inputs, data_samples, mode)

    model = Pair()
    runner_of(model, tmp_path, CenterPotentialsHook(batches=1), MeanTeacherHook()).train()
    own = dict(model.student.named_parameters())
    assert len(set(own['vgg.stages.3.1.norm.bias'].tolist())) > 1
    for name, parameter in model.teacher.named_parameters():
        torch.testing.assert_close(parameter, own[name], msg=name)


def test_without_a_stream_nothing_would_be_left_to_do():
    # The rule keeps what a batch norm gives: the deviation 1, and the bias as the mean.
    model = Detector(in_channels=3)
    first = model.vgg.stages[0][0]
    bias = first.norm.bias.detach().clone()
    center_potentials(model, batches())
    torch.testing.assert_close(first.norm.bias.detach(), bias, rtol=0, atol=1e-4)
    assert first.act.threshold.item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize('name', ['hoyer_ssd_vocformat', 'hoyer_ssd_cocoformat'])
def test_deep_neurons_of_the_shipped_network_fire_as_the_first_ones_do(name):
    torch.manual_seed(0)
    cfg = load_config(config_path(name), complete=False)
    assert dict(type='CenterPotentialsHook') in cfg.custom_hooks
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    body = nn.Sequential(detector.backbone, detector.neck)
    inputs = nn.functional.interpolate(
        torch.cat([batch['inputs'] for batch in batches()]), size=160, mode='bilinear'
    )

    class Body(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, inputs, mode='loss'):
            return dict(loss=sum(level.mean() for level in self.body(inputs)))

    def rates() -> list[float]:
        other, fired = copy.deepcopy(body).train(), []
        with (
            torch.no_grad(),
            record_spikes(other, lambda *seen: fired.append(seen[2].mean().item())),
        ):
            other(inputs)
        return fired

    before = rates()
    assert before[0] < 0.3 and before[-1] > 0.8
    assert center_potentials(Body(), [dict(inputs=inputs)]) == 14
    assert all(0.1 < rate < 0.45 for rate in rates())


def trained(model: Detector) -> Detector:
    """Take a step of training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()(batches()[0]['inputs'], mode='loss')['loss'].backward()
    optimizer.step()
    return model


def with_weights_of(twin: Detector, **vgg) -> Detector:
    """Return the spiking network with the weights of its twin, as ``load_from`` gives it."""
    model = Detector(**vgg)
    model.load_state_dict(twin.state_dict(), strict=False)
    return model


@pytest.mark.parametrize(
    'model',
    [
        trained(Detector()),
        with_weights_of(trained(Detector(dict(type='ReLU')))),
        with_weights_of(trained(Detector(dict(type='ReLU'), **_GROUPS)), **_GROUPS),
        Detector(frozen_stages=4),
        Detector(dict(type='ReLU')),
        Detector(norm_cfg=None),
    ],
    ids=['trained', 'trained ReLU twin', 'trained twin with GN', 'frozen', 'ReLU', 'without norm'],
)
def test_left_alone(model):
    before = state(model)
    assert center_potentials(model, batches()) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_new_layers_behind_a_trained_part_are_centred():
    model = trained(Detector())
    for layer in model.vgg.stages[3].modules():
        if isinstance(layer, HoyerSpike):
            layer.running_weight.zero_()
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
    before = state(model)
    assert center_potentials(model, batches()) == 2
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {
        f'vgg.stages.3.{block}.{part}'
        for block in (0, 1)
        for part in ('norm.bias', 'act.threshold')
    }


def test_channel_without_deviation_is_no_nan():
    model = Detector()
    center_potentials(model, [dict(inputs=torch.zeros(2, 3, 48, 48))])
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def runner_of(model: BaseModel, tmp_path, hook: CenterPotentialsHook, *first: Hook) -> Runner:
    return Runner(
        model,
        str(tmp_path),
        train_dataloader=DataLoader(images(), batch_size=8),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        custom_hooks=[*first, dict(type='EMAHook'), hook],
        default_hooks=dict(logger=None, checkpoint=None),
        experiment_name=f'centering-{next(_names)}',
    )


def test_in_a_run_the_average_starts_from_the_centred_network(tmp_path):
    torch.manual_seed(0)
    model = Detector()
    before = state(model)
    runner = runner_of(model, tmp_path, CenterPotentialsHook(batches=1))
    runner.train()
    (average,) = (hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook))
    for layer in ('stages.1.0.act.threshold', 'stages.3.1.norm.bias'):
        assert not torch.equal(model.state_dict()[f'vgg.{layer}'], before[f'vgg.{layer}'])
        assert torch.equal(average.state_dict()[f'vgg.{layer}'], model.state_dict()[f'vgg.{layer}'])


@pytest.mark.parametrize('why', ['resumed', 'from a ReLU network'])
def test_a_run_with_weights_of_its_own_is_left_alone(tmp_path, why):
    model, hook = Detector(), CenterPotentialsHook()
    runner = runner_of(model, tmp_path, hook)
    if why == 'resumed':
        runner.train_loop._iter = 5
    else:
        runner.train_loop  # noqa: B018
        model.vgg.init_cfg = dict(type='FromANN', checkpoint='any')
    before = state(model)
    hook.before_train(runner)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_number_of_batches_is_checked():
    with pytest.raises(ValueError, match='batches=0 must be at least 1'):
        CenterPotentialsHook(batches=0)
