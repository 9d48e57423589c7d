"""Leaky integrate-and-fire against a hand calculation, and against SpikingJelly where it is installed."""

import math

import pytest
import torch
from hoyer_det.spiking import LIFSpike


def test_spikes_and_gradient_of_a_hand_calculation():
    # v: 0.75; 1.125, fires; 0.75 again; 0.75 / 2 + 2 / 2 = 1.375, fires.
    x = torch.tensor([[1.5], [1.5], [1.5], [2.0]], dtype=torch.float64, requires_grad=True)
    spikes = LIFSpike(steps=4)(x)
    assert spikes.flatten().tolist() == [0, 1, 0, 1]
    spikes.sum().backward()
    slope = [1 / (1 + (math.pi * (v - 1)) ** 2) for v in (0.75, 1.125, 0.75, 1.375)]
    # Half of each input goes into v, half of which reaches the next step, unless the neuron fires.
    expected = [(slope[0] + slope[1] / 2) / 2, slope[1] / 2, (slope[2] + slope[3] / 2) / 2]
    expected.append(slope[3] / 2)
    assert x.grad.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_images_do_not_mix():
    x = torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(0)) * 2
    both = LIFSpike()(x).unflatten(0, (4, 2))
    assert torch.equal(both[:, 1], LIFSpike()(x.unflatten(0, (4, 2))[:, 1]))
    assert 0 < both.mean() < 1


def test_spikingjelly_agrees():
    neuron = pytest.importorskip(
        'spikingjelly.activation_based.neuron', reason='SpikingJelly is extra'
    )
    from spikingjelly.activation_based import surrogate

    theirs = neuron.LIFNode(
        tau=3.0,
        v_threshold=0.8,
        surrogate_function=surrogate.ATan(),
        detach_reset=True,
        step_mode='m',
    )
    x = torch.randn(6, 5, 7, dtype=torch.float64).mul(2).requires_grad_()
    weight = torch.randn(6, 5, 7, dtype=torch.float64)
    (theirs(x) * weight).sum().backward()
    expected, x.grad = x.grad, None
    theirs.reset()
    ours = LIFSpike(6, 3.0, 0.8)(x.flatten(0, 1)).unflatten(0, (6, 5))
    assert torch.equal(ours, theirs(x))
    (ours * weight).sum().backward()
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize(
    'arguments, said',
    [(dict(steps=0), 'steps'), (dict(tau=1), 'tau'), (dict(threshold=0), 'threshold')],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        LIFSpike(**arguments)


def test_a_batch_that_holds_no_whole_time_steps():
    with pytest.raises(ValueError, match='7 inputs are no multiple of 4 time steps'):
        LIFSpike()(torch.zeros(7, 2))
