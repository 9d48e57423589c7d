"""What holds for the kernels on a CPU whatever they are given: the numbers of PyTorch's operations."""

import numpy as np
import pytest
import torch
from hoyer_det.kernels import FastHoyerSpike, SpikeConv2d, norm_spike
from hoyer_det.spiking import record_hoyer_squares
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

pytestmark = pytest.mark.usefixtures('needs_kernels')
few = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
shapes = st.tuples(*(st.integers(1, n) for n in (3, 4, 5, 5)))
# Not 0 exactly: there the Hoyer square has a kink, and its gradient is that of the one side in the
# kernels, of the other in torch.clamp.
numbers = st.floats(-3, 3, width=16).filter(bool)
odd = st.sampled_from([0.0, -0.0, 1e38, -1e38, 1e-30, float('nan'), float('inf'), float('-inf')])
layers = st.builds(
    dict,
    extremum=st.sampled_from(['layer', 'channel', 'fixed']),
    saturated=st.sampled_from(['clip', 'exclude']),
    threshold=st.sampled_from([0.5, -1.3, 2.0]),
)


def images(elements: st.SearchStrategy) -> st.SearchStrategy:
    return arrays.arrays(np.float32, shapes, elements=elements).map(torch.from_numpy)


def step(x: torch.Tensor, options: dict, level: str, with_norm: bool) -> list[torch.Tensor]:
    """Return what a step of training gives: spikes, square, gradients, buffers."""
    layer = FastHoyerSpike(kernels=level, **options)
    norm = nn.BatchNorm2d(x.size(1)) if with_norm else nn.Identity()
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with record_hoyer_squares(layer) as squares:
        spikes = norm_spike(norm, layer, x)
    weights = torch.linspace(-1, 1, x.numel()).view(x.shape)
    ((spikes * weights).sum() + squares[0]).backward()
    parameters = [p.grad for p in (*norm.parameters(), layer.threshold)]
    return [spikes, squares[0], x.grad, *parameters, *norm.buffers(), *layer.buffers()]


def assert_same(x: torch.Tensor, options: dict, with_norm: bool) -> None:
    fast, plain = (step(x, options, level, with_norm) for level in ('tested', 'plain'))
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)


@few
@given(images(numbers), layers, st.booleans())
def test_neuron(x, options, channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert_same(x.contiguous(memory_format=layout), options, with_norm=False)


@few
@given(images(numbers | odd), layers)
def test_neuron_on_what_is_no_number_or_huge(x, options):
    fast, plain = (step(x, options, level, False) for level in ('tested', 'plain'))
    for index in (0, -2, -1):  # spikes and buffers; a gradient of NaN stops the training anyway
        torch.testing.assert_close(fast[index], plain[index], rtol=1e-4, atol=1e-5)


@few
@given(shapes.filter(lambda s: s[0] * s[2] * s[3] > 1), st.integers(0, 99), layers)
def test_norm_and_neuron(shape, seed, options):
    # Drawn, not built number by number: a variance of nearly 0 has no digits to compare.
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5
    assert_same(x, options, with_norm=True)


@few
@given(images(st.sampled_from([0.0, 1.0])), st.integers(1, 3), st.integers(0, 99))
def test_convolution_of_bits(x, kernel, seed):
    torch.manual_seed(seed)
    fast = SpikeConv2d(x.size(1), 3, kernel, padding=kernel // 2)
    plain = nn.Conv2d(x.size(1), 3, kernel, padding=kernel // 2)
    plain.load_state_dict(fast.state_dict())
    results = []
    for conv in (fast, plain):
        leaf = x.clone().requires_grad_()
        if min(x.shape[2:]) + 2 * (kernel // 2) < kernel:
            return
        out = conv(leaf)
        out.square().sum().backward()
        results.append((out, leaf.grad, conv.weight.grad, conv.bias.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
