"""Which activations become neurons, which stay, and how many neurons there are."""

import copy

import mmcv.cnn
import pytest
import torch
import torch.nn.functional as F
from hoyer_det.detectors import (
    ACTIVATIONS,
    Activation,
    SpikePerCall,
    convert_activations,
    trace_forward,
)
from hoyer_det.spiking import HoyerSpike, spiking_layers
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmcv.cnn.bricks.activation import Clamp
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from torch import nn

SPIKE = dict(type='HoyerSpike')
CHANNEL = dict(type='HoyerSpike', extremum='channel')


def convert(net: nn.Module, act_cfg: dict, *inputs: torch.Tensor) -> list[Activation]:
    """Convert a network by what it does with each of the inputs."""
    forwards = [lambda net, x=x: net(x) for x in inputs]
    return convert_activations(net, act_cfg, trace_forward(net, ACTIVATIONS, forwards))


IMAGES = torch.rand(2, 3, 8, 8), torch.rand(1, 3, 16, 8)


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
    (entry,) = convert(net, SPIKE, *IMAGES)
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
    (entry,) = convert(net, SPIKE, *IMAGES)
    assert net[1] is activation and entry.note == reason
    assert entry.spiking == isinstance(activation, HoyerSpike)


class Branches(nn.ModuleDict):
    """Runs all of its branches."""

    def forward(self, x):
        return [branch(x) for branch in self.values()]


def test_shared_modules_stay_shared():
    conv, act = ConvModule(3, 3, 1), nn.ReLU()
    net = nn.Sequential(Branches(dict(a=conv, b=nn.Sequential(conv, act), c=act, d=nn.ReLU())))
    report = convert(net, SPIKE, *IMAGES)
    a, b, c, d = net[0].values()
    assert a is b[0] and b[1] is c is not d
    # Each of the two shared activations runs twice.
    assert isinstance(a.activate, SpikePerCall) and isinstance(c, SpikePerCall)
    assert len(spiking_layers(net)) == 5 == sum(entry.neurons for entry in report)
    assert notes(report)['0.c'] == 'shared, see above'
    net(IMAGES[0])


class Unsure(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act, self.unused = nn.ReLU(), nn.ReLU()
        self.function = F.gelu

    def forward(self, x):
        if x.size(0) == 2:
            x = self.act(x)
        return self.function(self.act(F.relu(x)))


def test_unsteady_calls_share_one_neuron_and_functions_are_listed():
    net = nn.Sequential(Unsure())
    report = convert(net, SPIKE, *IMAGES)
    assert isinstance(net[0].act, HoyerSpike)
    assert notes(report)['0.act'] == 'one neuron for its 2 applications'
    assert {(entry.kind, entry.note) for entry in report if not entry.spiking} == {
        ('relu', 'called as a function'),
        ('gelu', 'called as a function'),
        ('ReLU', 'never called in a forward pass'),
    }
    net(IMAGES[0])


def test_what_an_error_kept_from_running_says_so():
    net = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Conv2d(4, 4, 1), nn.ReLU())
    forwards = [lambda net: net[0](IMAGES[0]), lambda net: net(IMAGES[0])]
    report = convert_activations(net, SPIKE, trace_forward(net, ACTIVATIONS, forwards))
    assert [(entry.spiking, entry.note) for entry in report] == [
        (True, ''),
        (False, 'never called in a forward pass; one ended by RuntimeError'),
    ]


def test_transformer_layer_of_torch_is_listed():
    tokens = torch.rand(2, 5, 8)
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation='gelu')
    report = convert(nn.Sequential(layer), SPIKE, tokens)
    assert [(e.place, e.kind, e.note) for e in report] == [
        ('TransformerEncoderLayer', 'gelu', 'called as a function')
    ]
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=nn.ReLU())
    (entry,) = convert(nn.Sequential(layer), SPIKE, tokens)
    assert isinstance(layer.activation, nn.ReLU) and 'fused' in entry.note


def test_copy_of_a_block_counts_its_own_calls():
    block = BasicBlock(4, 4)
    convert(block, SPIKE, torch.rand(2, 4, 8, 8))
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
    convert(block, SPIKE, torch.rand(2, 4, 8, 8))
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


def test_other_numbers_of_calls_are_refused():
    parent = Counted()
    parent.relu = SpikePerCall([HoyerSpike(), HoyerSpike()], parent, 'Counted.relu')
    parent(torch.rand(2, 3), 2)
    for times in (0, 1, 3, 4):
        with pytest.raises(RuntimeError, match=f'Counted.relu ran {times} times in .* not 2 times'):
            parent(torch.rand(2, 3), times)
    parent(torch.rand(2, 3), 2)


def test_forward_without_hooks_goes_round():
    # As in mode='tensor' of MMDetection, which calls `bbox_head.forward`.
    parent = Counted()
    neurons = [HoyerSpike(), HoyerSpike()]
    parent.relu = SpikePerCall(neurons, parent, 'Counted.relu')
    seen = []
    for neuron in neurons:
        neuron.register_forward_hook(lambda m, i, o: seen.append(m))
    for _ in range(2):
        parent.forward(torch.rand(2, 3), 2)
    assert seen == neurons * 2


class SharedHead(nn.Module):
    """A dense head in small: one activation for all feature levels."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, levels):
        return [self.act(level) for level in levels]


@pytest.mark.parametrize('act', [nn.ReLU(), HoyerSpike()], ids=['ReLU', 'HoyerSpike'])
def test_levels_of_unequal_scale_fire_alike_in_training_and_evaluation(act):
    # By hand, with v = 1: E = 0.14 / 0.6 = 0.23 of the first level, of which 0.3 fires alone; and
    # E = 1 of the second, of which all three fire. The average of both, about 0.64, would silence the
    # first level in evaluation.
    levels = [
        torch.tensor([0.1, 0.2, 0.3]).view(1, 1, 1, 3),
        torch.tensor([1.0, 2, 3]).view(1, 1, 1, 3),
    ]
    expected = [[0, 0, 1], [1, 1, 1]]
    net = nn.Sequential(SharedHead(act))
    report = convert(net, SPIKE, levels)
    assert [entry.neurons for entry in report] == [2]
    for _ in range(3):
        assert [spikes.flatten().tolist() for spikes in net(levels)] == expected
    assert [spikes.flatten().tolist() for spikes in net.eval()(levels)] == expected


def entries(module: nn.Module) -> list[int]:
    return [layer.running_extremum.numel() for layer in spiking_layers(module).values()]


def test_channels_are_those_of_the_inputs():
    net = nn.Sequential(
        ConvModule(3, 4, 1, norm_cfg=dict(type='BN')),
        ConvModule(4, 5, 1, norm_cfg=dict(type='BN'), order=('norm', 'act', 'conv')),
        DepthwiseSeparableConvModule(5, 6, 3),
        nn.Sequential(nn.Conv2d(6, 7, 1), nn.MaxPool2d(2), nn.ReLU()),
        Bottleneck(7, 2, downsample=nn.Conv2d(7, 8, 1)),
    )
    report = convert(net, CHANNEL, *IMAGES)
    assert entries(net) == [4, 4, 5, 6, 7, 2, 2, 8]
    assert not any(entry.note for entry in report)
    net(IMAGES[0])


class TokenMixer(nn.Module):
    """A feed-forward network on (N, H, W, C), whose dimension 1 is the height."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(3, 3), nn.GELU()

    def forward(self, x):
        return self.act(self.fc(x.permute(0, 2, 3, 1))).flatten(1, 2)


def test_channelwise_extremum_is_not_used_on_tokens_and_the_list_says_so():
    net = nn.Sequential(TokenMixer(), nn.Sequential(nn.Linear(3, 8), nn.ReLU()))
    report = convert(net, CHANNEL, *IMAGES)
    assert entries(net) == [1, 1]
    assert all("extremum='layer'" in entry.note for entry in report)
    for images in IMAGES:
        net(images)
