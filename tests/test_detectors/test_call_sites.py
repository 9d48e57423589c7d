"""What the source of a module tells about the calls of its activation."""

import pytest
import torch.nn.functional as F
from hoyer_det.detectors.call_sites import Calls, count_calls, function_calls, is_used
from mmdet.models.utils import multi_apply
from torch import nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    """Attributes that the forward passes below depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.fcs = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.none = nn.ModuleList()
        self.scales = 4
        self.deep = False
        self.first = None


class Twice(Block):
    def forward(self, x):
        return self.relu(1 - self.relu(x))


class InnerFunction(Block):
    def forward(self, x):
        def inner(x):
            return self.relu(x)

        x = checkpoint(inner, x) if self.deep and x.requires_grad else inner(x)
        return self.relu(x)


class Methods(Block):
    def forward(self, x):
        return self.relu(self.twice(x))

    def twice(self, x):
        return self.relu(self.relu(x))


class Heir(Methods):
    def twice(self, x):
        return self.relu(super().twice(x))


class OnlyInheritedCall(Methods):
    def twice(self, x):
        return x


class Property(Block):
    @property
    def act(self):
        return lambda x: self.relu(x)

    def forward(self, x):
        return self.act(x)


class Conditions(Block):
    def forward(self, x):
        if self.deep:
            x = self.relu(x)
        if self.first is None and self.scales > 3:
            x = self.relu(x)
        elif x.sum() > 0:
            x = self.relu(self.relu(x))
        return x if not self.deep else self.relu(x)


class EqualBranches(Block):
    def forward(self, x):
        if x.sum() > 0:
            return self.relu(x)
        x = x + 1
        return self.relu(x)


class UnequalBranches(Block):
    def forward(self, x):
        if x.sum() > 0:
            x = self.relu(x)
        return self.relu(x)


class InTrainingOnly(Block):
    def forward(self, x):
        if self.training:
            x = self.relu(x)
        return self.relu(x)


class EarlyReturn(Block):
    def forward(self, x):
        if not self.deep:
            return self.relu(x)
        return self.relu(self.relu(x))


class KnownLoops(Block):
    def forward(self, x):
        for i, fc in enumerate(self.fcs):
            x = self.relu(fc(x)) + i
        for fc in self.none:
            x = self.relu(fc(x))
        for _ in range(1, self.scales - 1):
            x = self.relu(x)
        return sum([self.relu(fc(x)) for fc in self.fcs])


class UnknownLoop(Block):
    def forward(self, xs):
        return [self.relu(self.relu(x)) for x in xs]


class LevelByLevel(Block):
    def forward(self, xs):
        return multi_apply(self.single, xs, self.fcs)

    def single(self, x, fc):
        return self.relu(fc(x)), self.relu(x)


class LoopAndMore(Block):
    def forward(self, xs):
        return self.relu(sum(self.relu(x) for x in xs))


class While(Block):
    def forward(self, x):
        while x.sum() > 0:
            x = self.relu(x) - 1
        return x


class HandedOn(Block):
    def forward(self, x):
        act = self.relu
        return act(act(x))


class Recursive(Block):
    def forward(self, x):
        return self.again(self.relu(x))

    def again(self, x):
        return self.again(self.relu(x))


class Unused(Block):
    def forward(self, x):
        return self.relu(x) if self.deep else x


class OutsideForward(Block):
    def forward(self, x):
        return x

    def loss(self, x):
        return self.relu(x)


@pytest.mark.parametrize(
    ('cls', 'expected'),
    [
        (Twice, Calls(2)),
        (InnerFunction, Calls(2)),
        (Methods, Calls(3)),
        (Heir, Calls(4)),
        (OnlyInheritedCall, Calls(1)),
        (Property, Calls(1)),
        (Conditions, Calls(1)),
        (EqualBranches, Calls(1)),
        (EarlyReturn, Calls(1)),
        (KnownLoops, Calls(3 + 0 + 2 + 3)),
        (UnknownLoop, Calls(2, repeated=True)),
        (LevelByLevel, Calls(2, repeated=True)),
        (While, Calls(1, repeated=True)),
        (Unused, Calls(0)),
        (OutsideForward, Calls(0)),
        (UnequalBranches, None),
        (InTrainingOnly, None),
        (LoopAndMore, None),
        (HandedOn, None),
        (Recursive, None),
    ],
)
def test_calls_of_one_forward_pass(cls, expected):
    assert count_calls(cls(), 'relu') == expected


def test_counts_are_those_of_a_real_pass():
    import torch

    for cls in (Twice, InnerFunction, Methods, Heir, Conditions, EqualBranches, KnownLoops):
        block, calls = cls(), []
        block.relu.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        block(torch.rand(2, 2))
        assert Calls(len(calls)) == count_calls(block, 'relu'), cls


def test_wrapped_forward_says_nothing():
    block = Twice()
    block.forward = lambda x: x
    assert count_calls(block, 'relu') is None


def test_source_that_is_not_there_says_nothing():
    namespace = {'Block': Block}
    exec('class Made(Block):\n  def forward(self, x):\n    return self.relu(x)', namespace)
    assert count_calls(namespace['Made'](), 'relu') is None


@pytest.mark.parametrize(
    ('cls', 'used'), [(Twice, True), (OutsideForward, True), (Unused, False), (Block, False)]
)
def test_use_of_an_attribute(cls, used):
    assert is_used(cls(), 'relu') == used


class Functions(nn.Module):
    def __init__(self, extra: bool) -> None:
        super().__init__()
        self.relu, self.extra = nn.ReLU(), extra

    def forward(self, x):
        x = self.relu(x)
        return self.single(F.relu(x) if self.extra else x).gelu()

    def single(self, x):
        return F.silu(x)


class Overridden(Functions):
    def single(self, x):
        return x


def test_functions_are_found_in_the_methods_that_are_used():
    assert sorted(function_calls(Functions(False))) == [
        'F.silu in Functions.single',
        'self.single(F.relu(x) if self.extra else x).gelu in Functions.forward',
    ]
    assert 'F.relu in Functions.forward' in function_calls(Functions(True))
    assert [call.split()[-1] for call in function_calls(Overridden(False))] == ['Functions.forward']
    assert function_calls(nn.MultiheadAttention(4, 1)) == []
    assert function_calls(nn.ReLU()) == []
