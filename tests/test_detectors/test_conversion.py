"""Which activations become neurons, which stay, and how many neurons there are."""

import copy

import mmcv.cnn
import pytest
import torch
import torch.nn.functional as F
from hoyer_det.detectors import SpikePerCall, convert_activations
from hoyer_det.spiking import HoyerSpike, spiking_layers
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmcv.cnn.bricks.activation import Clamp
from mmdet.models.backbones.resnet import BasicBlock
from torch import nn

SPIKE = dict(type='HoyerSpike')
CHANNEL = dict(type='HoyerSpike', extremum='channel')


def notes(report) -> dict[str, str]:
    return {entry.name: entry.note for entry in report}


@pytest.mark.parametrize(
    'activation',
    [
        *(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.RReLU(), nn.ELU(), nn.CELU()),
        *(nn.SELU(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Hardswish()),
        *(mmcv.cnn.Swish(), mmcv.cnn.HSwish()),
    ],
    ids=lambda activation: type(activation).__name__,
)
def test_rectifiers_become_neurons(activation):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), activation)
    (entry,) = convert_activations(net, SPIKE)
    assert isinstance(net[1], HoyerSpike) and entry.spiking and entry.neurons == 1
    assert entry.kind == type(activation).__name__
    assert ('dropped' in entry.note) == isinstance(activation, nn.PReLU)


@pytest.mark.parametrize(
    ('activation', 'reason'),
    [
        *((nn.Sigmoid(), 'gate'), (nn.Hardsigmoid(), 'gate'), (nn.Tanh(), 'gate')),
        *((mmcv.cnn.HSigmoid(), 'gate'), (nn.Softmax(1), 'normaliser')),
        *((nn.Softplus(), 'no rectifier'), (nn.Hardtanh(), 'no rectifier')),
        *((Clamp(), 'no rectifier'), (HoyerSpike(), 'already spiking')),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_gates_and_normalisers_stay(activation, reason):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), activation)
    (entry,) = convert_activations(net, SPIKE)
    assert net[1] is activation and entry.note == reason
    assert entry.spiking == isinstance(activation, HoyerSpike)


def test_shared_modules_stay_shared():
    conv, act = ConvModule(4, 4, 1), nn.ReLU()
    net = nn.ModuleDict(
        dict(a=conv, b=nn.Sequential(conv, act), c=nn.Sequential(act), d=nn.Sequential(nn.ReLU()))
    )
    report = convert_activations(net, SPIKE, prefix='part')
    assert net['a'] is net['b'][0] and net['b'][1] is net['c'][0] is not net['d'][0]
    assert len(spiking_layers(net)) == 3 == sum(entry.neurons for entry in report)
    assert notes(report)['part.b.1'] == 'one neuron for the 2 places of this instance'
    assert notes(report)['part.c.0'] == 'shared, see above'


class Unsure(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.function = F.gelu

    def forward(self, x):
        if x.sum() > 0:
            x = self.act(x)
        return self.function(self.act(F.relu(x)))


def test_doubtful_calls_share_one_neuron_and_functions_are_listed():
    net = nn.Sequential(Unsure())
    report = convert_activations(net, SPIKE)
    assert isinstance(net[0].act, HoyerSpike)
    assert notes(report)['0.act'] == 'one neuron for all its calls, their number cannot be told'
    assert {(entry.kind, entry.note) for entry in report if not entry.spiking} == {
        ('F.relu', 'called as a function in Unsure.forward'),
        ('gelu', 'attribute that holds a function'),
    }
    net(torch.rand(2, 3))


def test_transformer_layer_of_torch_is_listed():
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation='gelu')
    report = convert_activations(nn.Sequential(layer), SPIKE)
    assert [(e.place, e.note) for e in report] == [
        ('TransformerEncoderLayer.activation', 'attribute that holds a function')
    ]
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=nn.ReLU())
    (entry,) = convert_activations(nn.Sequential(layer), SPIKE)
    assert isinstance(layer.activation, nn.ReLU) and 'fused' in entry.note


def test_copy_of_a_block_counts_its_own_calls():
    block = BasicBlock(4, 4)
    convert_activations(block, SPIKE)
    copied = copy.deepcopy(block)
    block.relu._calls = copied.relu._calls = 7  # as after a pass that was broken off
    x = torch.rand(2, 4, 8, 8)
    copied(x)
    # Had the copy kept the hooks of the original, it would have run into its own 7.
    assert copied.relu._calls == 2 and block.relu._calls == 7
    weights = [neuron.running_weight.item() for neuron in copied.relu]
    assert weights == pytest.approx([0.1, 0.1])
    assert [neuron.running_weight.item() for neuron in block.relu] == [0, 0]
    block(x)
    assert block.relu._calls == 2


def test_pass_that_broke_off_leaves_no_trace():
    block = BasicBlock(4, 4)
    convert_activations(block, SPIKE)
    with pytest.raises(RuntimeError):
        block(torch.rand(2, 4, 8))  # fails in the first batch norm
    seen = []
    for neuron in block.relu:
        neuron.register_forward_hook(lambda m, i, o: seen.append(m))
    handle = block.bn2.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        block(torch.rand(2, 4, 8, 8))
    handle.remove()
    block(torch.rand(2, 4, 8, 8))
    assert seen == [block.relu[0], block.relu[0], block.relu[1]]


class Counted(nn.Module):
    """Calls its activation as often as it is asked to."""

    def forward(self, x, times):
        for _ in range(times):
            x = self.relu(x)
        return x


def test_calls_that_were_not_counted_are_refused():
    parent = Counted()
    parent.relu = SpikePerCall([HoyerSpike(), HoyerSpike()], parent, 'Counted.relu')
    parent(torch.rand(2, 3), 2)
    with pytest.raises(RuntimeError, match='Counted.relu was called more often than the 2 times'):
        parent(torch.rand(2, 3), 3)
    for times in (0, 1):
        with pytest.raises(RuntimeError, match=f'Counted.relu was called {times} times'):
            parent(torch.rand(2, 3), times)
    parent.relu.repeated = True
    parent(torch.rand(2, 3), 4)
    with pytest.raises(RuntimeError, match='Counted.relu was called 3 times'):
        parent(torch.rand(2, 3), 3)


def entries(module: nn.Module) -> list[int]:
    return [layer.running_extremum.numel() for layer in spiking_layers(module).values()]


def test_channels_are_told_by_the_layer_before():
    net = nn.Sequential(
        ConvModule(3, 4, 1, norm_cfg=dict(type='BN')),
        ConvModule(4, 5, 1, norm_cfg=dict(type='BN'), order=('norm', 'act', 'conv')),
        DepthwiseSeparableConvModule(5, 6, 3),
        nn.Sequential(nn.Conv2d(6, 7, 1), nn.MaxPool2d(2), nn.ReLU()),
        nn.Sequential(nn.Conv2d(7, 8, 1), nn.GroupNorm(2, 8), nn.Dropout(), nn.SiLU()),
    )
    report = convert_activations(net, CHANNEL)
    assert entries(net) == [4, 4, 5, 6, 7, 8]
    assert not any(entry.note for entry in report)
    net(torch.rand(2, 3, 8, 8))


class TokenMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(8, 8), nn.GELU()

    def forward(self, x):
        return self.act(self.fc(x))


def test_channelwise_extremum_is_not_used_on_tokens_and_the_list_says_so():
    net = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), TokenMixer())
    report = convert_activations(net, CHANNEL)
    assert entries(net) == [1, 1]
    assert all("extremum='layer'" in entry.note for entry in report)
    net(torch.rand(2, 5, 8))
    net(torch.rand(2, 6, 8))


def test_channels_that_nothing_tells_are_learned_and_the_list_says_so():
    block = BasicBlock(4, 4)
    (entry,) = convert_activations(block, CHANNEL)
    assert entry.note == 'channels are learned from the first batch' and entries(block) == [0, 0]
    block(torch.rand(2, 4, 8, 8))
    assert entries(block) == [4, 4]
