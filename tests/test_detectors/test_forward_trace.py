"""What a forward pass tells about the activations, and that it leaves no trace in the model."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hoyer_det.detectors import trace_forward
from mmdet.models.backbones.resnet import Bottleneck
from mmdet.models.utils import multi_apply
from torch import nn

X = torch.rand(2, 4, 6, 6)
RELU = (nn.ReLU,)


class Loop(nn.Module):
    """Runs a convolution with its activation on each level, and another activation twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.relu = nn.ReLU()

    def forward(self, levels):
        return multi_apply(self.single, levels)

    def single(self, x):
        return self.relu(self.conv(x)), self.relu(x)


def test_frame_is_the_innermost_module_that_runs_once():
    net = nn.Sequential(nn.Identity(), nn.Sequential(Loop()))
    levels = [X, X[..., :3], X[..., :1, :1]]
    trace = trace_forward(net, RELU, [lambda net: net(levels)])
    conv, relu = trace.use('1.0.conv.1'), trace.use('1.0.relu')
    assert conv.frame == relu.frame == '1.0'
    assert conv.shapes == [{level.shape} for level in levels]
    assert relu.shapes == [{level.shape} for level in levels for _ in range(2)]
    assert (conv.total, relu.total) == (3, 6)
    assert conv.inside == {'1.0', '1.0.conv'}


def test_module_that_runs_twice_is_no_frame_but_its_block_is():
    block = Bottleneck(4, 1)
    net = nn.Sequential(block, block)  # as of a Siamese network
    use = trace_forward(net, RELU, [lambda net: net(X)]).use('0.relu')
    # The root runs once: all applications get their own neuron.
    assert use.frame == '' and use.total == 6
    # A detector's `loss` is no forward: nothing that runs once holds them all.
    use = trace_forward(net, RELU, [lambda net: net[0](net[0](X))]).use('0.relu')
    assert use.frame == '0' and use.total == 6
    assert use.shapes == [{(2, 1, 6, 6)}, {(2, 1, 6, 6)}, {(2, 4, 6, 6)}]


def test_numbers_that_differ_between_passes_name_no_frame():
    trace = trace_forward(Loop(), RELU, [lambda net: net([X]), lambda net: net([X, X])])
    assert trace.use('relu').frame is None
    assert trace.use('conv.1').frame == 'conv'
    assert trace.use('conv.1').total == 2


def test_what_an_error_ended_is_not_counted():
    net = nn.Sequential(nn.Sequential(nn.ReLU()), Loop())
    trace = trace_forward(net, RELU, [lambda net: [net[0](X), net[1]([X, X[:, :1]])]])
    assert len(trace.errors) == 1 and trace.use('0.0').frame == '0'
    assert trace.use('1.relu') is None and trace.use('1.conv.1') is None


class Functions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x):
        x = self.relu(self.norm(F.dropout(x)))
        return F.relu(x + random.random() + np.random.rand()).relu_()


def test_functions_are_seen_and_modules_are_not_taken_for_them():
    trace = trace_forward(nn.Sequential(Functions()), RELU, [lambda net: net(X)])
    assert set(trace.functions) == {('0', 'relu'), ('0', 'relu_')}


def test_model_and_generators_are_left_alone():
    net = nn.Sequential(Functions()).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def draw() -> tuple:
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()

    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = draw()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    trace_forward(net, RELU, [lambda net: net.eval()(X), lambda net: net.train()(X)])
    assert draw() == expected
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert net.training and not any(m._forward_hooks for m in net.modules())


def test_weights_on_the_meta_device_will_do():
    net = Bottleneck(4, 1).to('meta')
    use = trace_forward(net, RELU, [lambda net: net(X)]).use('relu')
    assert use.shapes == [{(2, 1, 6, 6)}, {(2, 1, 6, 6)}, {(2, 4, 6, 6)}]
    assert net.conv1.weight.is_meta


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_set_yet_will_do(value):
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
    nn.init.constant_(net[0].weight, value)
    seen = []
    trace_forward(net, RELU, [lambda net: seen.append(net(X))])
    assert seen[0].isfinite().all()
