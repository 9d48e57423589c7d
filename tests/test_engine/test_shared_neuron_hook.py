"""One neuron on unlike inputs is warned of; neurons of their own are not."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from hoyer_det.detectors import ACTIVATIONS, convert_activations, trace_forward
from hoyer_det.engine import SharedNeuronHook
from hoyer_det.spiking import HoyerSpike, spiking_layers
from torch import Tensor, nn

# By hand, at a threshold of 1: E = 0.14 / 0.6 = 0.23, and E = 1.
LEVELS = [torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([[1.0, 2.0, 3.0]])]


class Head(nn.Module):
    def __init__(self, **act: object) -> None:
        super().__init__()
        self.act = HoyerSpike(**act)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        return [self.act(level) for level in levels]


def warnings(net: nn.Module, *steps: list[Tensor], **options: float) -> list[str]:
    """What the hook says of some training steps."""
    runner = SimpleNamespace(model=net, logger=mock.Mock())
    hook = SharedNeuronHook(**options)
    hook.before_train(runner)
    for index, levels in enumerate(steps):
        net(levels)
        hook.after_train_iter(runner, index)
    hook.after_train(runner)
    assert not any(layer._observers for layer in spiking_layers(net).values())
    return [call.args[0] for call in runner.logger.warning.call_args_list]


@pytest.mark.parametrize('trained', [0, 300])
def test_unlike_levels_are_told_once_with_their_extrema(trained):
    net = nn.ModuleDict(dict(bbox_head=Head()))
    net.forward = lambda levels: net['bbox_head'](levels)
    for _ in range(trained):  # until the weight of the average is 1
        net(LEVELS)
    (text,) = warnings(net, LEVELS, LEVELS)
    assert text.startswith(
        'bbox_head.act runs 2 times in a training step, at extrema from 0.23 to 1.'
    )
    assert "parts=['bbox_head']" in text


@pytest.mark.parametrize(
    ('levels', 'act', 'options'),
    [
        (LEVELS[:1], {}, {}),
        ([LEVELS[0], LEVELS[0] * 1.5], {}, {}),
        (LEVELS, {}, dict(ratio=5)),
        (LEVELS, dict(extremum='fixed'), {}),
        ([LEVELS[0], -LEVELS[1]], {}, {}),  # a level that never fires has no extremum
    ],
)
def test_what_does_not_matter_is_not_told(levels, act, options):
    assert warnings(Head(**act), levels, **options) == []


def test_neurons_of_their_own_are_not_told():
    net = Head()
    trace = trace_forward(net, ACTIVATIONS, [lambda net: net(LEVELS)])
    convert_activations(net, dict(type='HoyerSpike'), trace)
    assert len(spiking_layers(net)) == 2 and warnings(net, LEVELS) == []


def test_channelwise_extrema_are_compared_by_their_mean():
    levels = [
        level.view(1, 3, 1, 1) for level in LEVELS
    ]  # of one pixel, each channel's is its value
    (text,) = warnings(Head(extremum='channel', num_features=3), levels)
    assert 'from 0.2 to 1.' in text


def test_no_step_and_a_wrong_ratio():
    assert warnings(Head()) == []
    with pytest.raises(ValueError, match='ratio must be above 1, got 1'):
        SharedNeuronHook(ratio=1)
