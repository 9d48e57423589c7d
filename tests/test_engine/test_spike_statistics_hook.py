"""SpikeStatisticsHook against the regularizer, counts by hand and every visual backend."""

import itertools
import json

import pytest
import torch
from hoyer_det.engine import HoyerRegularizerHook
from hoyer_det.engine.spike_statistics_hook import SpikeStatisticsHook
from hoyer_det.spiking import HoyerSpike, record_spikes, spiking_layers
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_ssd import Watch, build_ssd, images, train
from torch.utils.data import DataLoader

_names = itertools.count()
QUANTITIES = ('train_spike_rate', 'threshold', 'extremum', 'hoyer_square')


def logged(folder) -> dict[int, dict[str, float]]:
    """Scalars by step, as the local backend wrote them."""
    (file,) = folder.glob('*/vis_data/scalars.json')
    steps: dict[int, dict[str, float]] = {}
    for line in file.read_text().splitlines():
        values = json.loads(line)
        steps.setdefault(values.pop('step'), {}).update(values)
    return steps


class Rates(Hook):
    """Spike rates of each iteration, counted by hooks of its own, and the state afterwards."""

    def before_train(self, runner) -> None:
        self.steps = []
        for name, layer in spiking_layers(runner.model).items():
            layer.register_forward_hook(self.listen(name))

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.steps.append({})

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        for name, layer in spiking_layers(runner.model).items():
            self.steps[-1][f'extremum/{name}'] = float(layer.average_extremum().mean())
            self.steps[-1][f'threshold/{name}'] = abs(layer.threshold.item())

    def listen(self, name):
        def hook(module, inputs, spikes):
            self.steps[-1][f'train_spike_rate/{name}'] = float((spikes == 1).double().mean())

        return hook


def test_numbers_of_the_measured_iterations_and_of_no_other(tmp_path):
    rates, watch = Rates(), Watch()
    hooks = [HoyerRegularizerHook(weight=1.0), SpikeStatisticsHook(interval=2), rates, watch]
    model = build_ssd()
    train(model, hooks, tmp_path, iters=5, optimizer=dict(type='SGD', lr=1e-3))
    steps = logged(tmp_path)
    assert sorted(steps) == [2, 4]
    names = list(spiking_layers(model))
    for step, found in steps.items():
        assert set(found) == {f'{quantity}/{name}' for quantity in QUANTITIES for name in names}
        for key, value in rates.steps[step - 1].items():
            assert found[key] == pytest.approx(value, rel=1e-5), key
        squares = sum(found[f'hoyer_square/{name}'] for name in names)
        assert squares == pytest.approx(watch.logs[step - 1]['loss_hoyer'].item(), rel=1e-5)
    assert not any('loss' in key for key in found)
    assert steps[2] != steps[4]


def test_it_observes_the_measured_iterations_only(tmp_path):
    class Listeners(Hook):
        priority = 'VERY_LOW'
        seen: list[int] = []

        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            self.seen.append(sum(len(layer._observers) for layer in layers))

    model = build_ssd()
    layers = spiking_layers(model).values()
    hook = SpikeStatisticsHook(interval=3)
    train(model, [hook, Listeners()], tmp_path, iters=4)
    assert Listeners.seen == [0, 0, len(layers), 0]
    assert not any(layer._observers for layer in layers)
    assert hook._sums == {}


def test_gradient_checkpointing_counts_each_layer_once(tmp_path):
    found = []
    for with_cp in (False, True):
        folder = tmp_path / str(with_cp)
        model = build_ssd(with_cp=with_cp)
        train(model, [SpikeStatisticsHook(interval=1)], folder)
        found.append(logged(folder)[1])
    assert found[0] == pytest.approx(found[1])


def make_runner(folder, interval: int) -> Runner:
    data = [item for seed in range(4) for item in images(1, seed)]
    return Runner(
        model=build_ssd(),
        work_dir=str(folder),
        train_dataloader=DataLoader(data, batch_size=1, collate_fn=pseudo_collate),
        train_cfg=dict(by_epoch=False, max_iters=4),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        custom_hooks=[SpikeStatisticsHook()],
        default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=interval)),
        visualizer=dict(
            type='Visualizer',
            vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
        ),
        default_scope='mmdet',
        log_level='ERROR',
        experiment_name=f'spike_statistics_{next(_names)}',
    )


def test_interval_of_the_log_and_every_backend(tmp_path):
    runner = make_runner(tmp_path, interval=4)
    assert any(isinstance(hook, LoggerHook) for hook in runner.hooks)
    runner.train()
    runner.visualizer.close()
    scalars = {step: found for step, found in logged(tmp_path).items() if 'threshold' in str(found)}
    assert sorted(scalars) == [4]
    events = EventAccumulator(str(next(tmp_path.glob('*/vis_data'))))
    events.Reload()
    key = 'train_spike_rate/backbone.stages.0.0.act'
    (event,) = events.Scalars(key)
    assert event.step == 4 and event.value == pytest.approx(scalars[4][key])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_holds_the_number_of_neurons(dtype):
    layer = HoyerSpike(extremum='fixed')
    hook = SpikeStatisticsHook(interval=1)
    # 70001 neurons are infinitely many in float16, and 70144 in bfloat16.
    u = torch.zeros(1, 1, 1, 70001, dtype=dtype)
    u[..., :7000] = 2
    with record_spikes(layer, hook._observe):
        layer(u)
    assert hook._sums[''].tolist() == [7000, 70001, 7000]


def test_a_layer_without_a_positive_potential_logs_no_nan(tmp_path):
    model = build_ssd()
    layer = model.backbone.stages[0][0]
    torch.nn.init.zeros_(layer.norm.weight)
    torch.nn.init.constant_(layer.norm.bias, -1.0)
    train(model, [SpikeStatisticsHook(interval=1)], tmp_path, optimizer=dict(type='SGD', lr=0.0))
    found = logged(tmp_path)[1]
    name = 'backbone.stages.0.0.act'
    assert [found[f'{quantity}/{name}'] for quantity in QUANTITIES] == [0, 1, 1, 0]


def test_wrong_interval():
    with pytest.raises(ValueError, match='interval must be at least 1'):
        SpikeStatisticsHook(interval=0)
