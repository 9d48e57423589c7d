"""SpikeRateHook against a count by hand."""

import itertools
import json
import logging
from types import SimpleNamespace

import pytest
import torch
from hoyer_det.engine import SpikeRateHook, spike_rate_hook
from hoyer_det.spiking import HoyerSpike
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

_names = itertools.count()


class TwoLayers(BaseModel):
    """Fires at 1 in ``first``, then counts that layer's spikes twice through ``shared``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = HoyerSpike(extremum='fixed')
        self.shared = HoyerSpike(extremum='fixed', threshold=0.5)
        for layer in (self.first, self.shared):
            layer.running_weight.fill_(layer.momentum)
            layer.running_extremum.fill_(layer.momentum)

    def forward(self, inputs, mode='tensor'):
        spikes = self.first(inputs)
        self.shared(spikes[..., :2])
        self.shared(spikes)
        return list(spikes)


# Images of four pixels. `first` fires on 3 of 12 pixels; `shared` sees their left halves (2 of 6)
# and then all of them: 5 of 18.
IMAGES = [
    torch.tensor([[[2.0, 0.0, 0.5, 1.0]]]),
    torch.tensor([[[-3.0, 1.5, 0.9, 0.0]]]),
    torch.tensor([[[0.0, 0.2, -1.0, 0.99]]]),
]
RATES = {'spike_rate/first': 3 / 12, 'spike_rate/shared': 5 / 18, 'spike_rate': 8 / 30}


class NoMetric(BaseMetric):
    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict:
        return dict(images=len(results))


def make_runner(folder, task: str) -> Runner:
    loader = DataLoader(
        IMAGES, batch_size=2, collate_fn=lambda items: dict(inputs=torch.stack(items))
    )
    return Runner(
        model=TwoLayers(),
        work_dir=str(folder),
        custom_hooks=[SpikeRateHook()],
        default_hooks=dict(checkpoint=None, logger=None),
        visualizer=dict(
            type='Visualizer',
            vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
        ),
        experiment_name=f'spike_rate_{next(_names)}',
        **{
            f'{task}_dataloader': loader,
            f'{task}_cfg': dict(),
            f'{task}_evaluator': Evaluator(NoMetric()),
        },
    )


@pytest.mark.parametrize('task', ['val', 'test'])
def test_runner_logs_the_rates_and_hands_them_to_every_backend(tmp_path, task):
    runner = make_runner(tmp_path, task)
    getattr(runner, task)()
    runner.visualizer.close()

    (log,) = tmp_path.glob('*/*.log')
    lines = log.read_text().split('Spike rate by layer:\n')[1].splitlines()[:3]
    assert lines == ['first         25.0%', 'shared        27.8%', 'all neurons   26.7%']

    (scalars,) = tmp_path.glob('*/vis_data/scalars.json')
    found = {}
    for line in scalars.read_text().splitlines():
        found.update(json.loads(line))
    assert {key: found[key] for key in RATES} == pytest.approx(RATES)

    events = EventAccumulator(str(next(tmp_path.glob('*/vis_data'))))
    events.Reload()
    for key, rate in RATES.items():
        assert events.Scalars(key)[0].value == pytest.approx(rate)

    # Nothing listens any more, and a second evaluation starts from 0.
    assert not runner.model.first._forward_hooks
    getattr(runner, task)()
    assert log.read_text().count('first         25.0%') == 2


def rates_of(model: torch.nn.Module, inputs: torch.Tensor) -> dict[str, float]:
    hook, found = SpikeRateHook(), {}
    runner = SimpleNamespace(
        model=model,
        logger=logging.getLogger('spike_rate'),
        iter=0,
        visualizer=SimpleNamespace(add_scalars=lambda scalars, step: found.update(scalars)),
    )
    hook.before_test_epoch(runner)
    with torch.no_grad():
        model.eval()(inputs)
    hook.after_test_epoch(runner)
    return found


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_holds_the_number_of_neurons(dtype):
    # 70001 neurons are infinitely many in float16, and 70144 in bfloat16.
    inputs = torch.zeros(1, 1, 1, 70001, dtype=dtype)
    inputs[..., :7000] = 2
    assert rates_of(TwoLayers(), inputs)['spike_rate/first'] == pytest.approx(7000 / 70001)


@pytest.mark.parametrize('ran', [True, False])
def test_all_processes_add_up_the_same_layers(monkeypatch, ran):
    def add(counts):  # another process, in which `shared` fired 3 times on 4 neurons
        assert counts.shape == (2, 2)
        counts += torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)

    monkeypatch.setattr(spike_rate_hook, 'all_reduce', add)
    model = TwoLayers()
    if not ran:
        model.forward = lambda inputs: None
    found = rates_of(model, torch.stack(IMAGES))
    if ran:
        assert found['spike_rate/shared'] == pytest.approx(8 / 22)
        assert found['spike_rate'] == pytest.approx(11 / 34)
    else:
        assert found == {'spike_rate/shared': 0.75, 'spike_rate': 0.75}


def test_a_model_without_neurons_reports_nothing():
    assert rates_of(torch.nn.ReLU(), torch.ones(1, 1, 2, 2)) == {}
