"""HoyerSpike against the authors' golden values, autograd and hand-worked cases."""

import copy
import doctest
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hoyer_det.spiking import (
    HoyerSpike,
    check_potentials,
    hoyer_extremum,
    hoyer_square,
    record_hoyer_squares,
    untrained_layers,
)
from hoyer_det.spiking import hoyer as hoyer_module
from hoyer_det.spiking import neuron as neuron_module
from mmengine.model import ExponentialMovingAverage
from torch import nn

GOLDEN = np.load(Path(__file__).parents[1] / 'data' / 'hoyer_spike_golden.npz')
SPIKING = Path(neuron_module.__file__).parent
CASES = sorted({key.split('/')[0] for key in GOLDEN.files})


def golden(case: str, key: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[f'{case}/{key}'])


def make(case: str) -> HoyerSpike:
    extremum, saturated, shape = case.split('-')
    channels = int(shape.split('x')[1])
    return HoyerSpike(
        channels, extremum, threshold=float(golden(case, 'threshold')), saturated=saturated
    )


@pytest.mark.parametrize('case', CASES)
def test_two_training_steps_and_evaluation_match_the_authors(case):
    layer = make(case).train()
    for step in ('step0', 'step1'):
        u = golden(case, f'{step}/u').requires_grad_()
        layer.threshold.grad = None
        spikes = layer(u)
        spikes.backward(golden(case, f'{step}/grad_out'))
        assert torch.equal(spikes, golden(case, f'{step}/spikes'))
        torch.testing.assert_close(u.grad, golden(case, f'{step}/grad_u'))
        torch.testing.assert_close(
            layer.threshold.grad, golden(case, f'{step}/grad_threshold'), rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(
            layer.running_extremum, golden(case, f'{step}/running_extremum'), rtol=1e-6, atol=1e-7
        )
    # Infinitely many batches: the correction for the start is 1, as in the authors' code.
    layer.running_weight.fill_(1.0)
    spikes = layer.eval()(golden(case, 'eval/u'))
    assert torch.equal(spikes, golden(case, 'eval/spikes'))


def reference(u, v, extremum, saturated, scale, window, height):
    """The definition in plain differentiable operations: spikes with a surrogate, Hoyer square."""
    z = u / v.abs()
    c = z.clamp(0, 1)
    dims = {'layer': (0, 1, 2, 3), 'channel': (0, 2, 3), 'fixed': (0, 1, 2, 3)}[extremum]
    e = c.detach().masked_fill(z >= 1, 0) if saturated == 'exclude' else c.detach()
    level = e.pow(2).sum(dims, keepdim=True) / e.sum(dims, keepdim=True)
    if extremum == 'fixed':
        level = torch.ones_like(level)
    hard = (z >= scale * level).to(u.dtype)
    soft = height * z.clamp(0, window)
    return hard.detach() + soft - soft.detach(), c.sum() ** 2 / c.pow(2).sum()


@pytest.mark.parametrize('extremum', ['layer', 'channel', 'fixed'])
@pytest.mark.parametrize('saturated', ['clip', 'exclude'])
@pytest.mark.parametrize('threshold', [0.7, -1.3])
def test_values_and_gradients_match_autograd_in_float64(extremum, saturated, threshold):
    torch.manual_seed(0)
    options = dict(extremum_scale=0.8, surrogate_window=1.5, surrogate_height=0.3)
    layer = HoyerSpike(6, extremum, threshold, saturated=saturated, **options).double()
    u = torch.randn(3, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn_like(u)
    with record_hoyer_squares(layer) as squares:
        spikes = layer(u)
    (square,) = squares
    (0.3 * square + (spikes * w).sum()).backward()

    u2 = u.detach().clone().requires_grad_()
    v2 = torch.tensor(threshold, dtype=torch.float64, requires_grad=True)
    spikes2, square2 = reference(u2, v2, extremum, saturated, 0.8, 1.5, 0.3)
    (0.3 * square2 + (spikes2 * w).sum()).backward()
    assert torch.equal(spikes, spikes2.round())
    torch.testing.assert_close(square, square2)
    torch.testing.assert_close(u.grad, u2.grad)
    torch.testing.assert_close(layer.threshold.grad, v2.grad)


def test_hoyer_quantities_of_a_hand_worked_vector():
    x = torch.tensor([3.0, -4.0, 0.0])
    assert hoyer_square(x).item() == pytest.approx(49 / 25)
    assert hoyer_extremum(x).item() == pytest.approx(25 / 7)
    rows = torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    assert hoyer_square(rows, dim=1).tolist() == [2.0, 1.0, 0.0]
    assert hoyer_extremum(rows, dim=1).tolist() == [1.0, 2.0, 1.0]


def test_hoyer_square_is_stationary_at_the_extremum():
    x = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    value = hoyer_extremum(x)
    # Adding an entry of exactly E leaves the extremum where it is and gives that entry no gradient.
    grown = torch.cat([x, value.view(1)]).requires_grad_()
    hoyer_square(grown).backward()
    assert grown.grad[-1].abs() < 1e-12 < grown.grad[0].abs()


def test_evaluation_corrects_the_average_for_its_start():
    layer = HoyerSpike(threshold=2.0)
    u = torch.tensor([[[[0.5, 1.0, 4.0, -1.0]]]])
    layer(u)
    extremum = (0.25**2 + 0.5**2 + 1) / 1.75  # 0.75
    assert layer.running_extremum.item() == pytest.approx(0.1 * extremum)
    probe = torch.tensor([[[[1.499, 1.501, 0.2, 9.0]]]])
    assert layer.eval()(probe).flatten().tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize('extremum', ['layer', 'channel'])
@pytest.mark.parametrize('value', [0.0, -3.0])
def test_no_positive_potential_gives_no_spike_and_leaves_the_average(extremum, value):
    layer = HoyerSpike(2, extremum)
    layer(torch.rand(2, 2, 3, 3) + 0.1)
    before = copy.deepcopy(layer.state_dict())
    u = torch.full((2, 2, 3, 3), value, requires_grad=True)
    with record_hoyer_squares(layer) as squares:
        spikes = layer(u)
    (spikes.sum() + squares[0]).backward()
    assert spikes.sum() == 0 and squares[0] == 0
    assert torch.isfinite(u.grad).all() and torch.isfinite(layer.threshold.grad)
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())


@pytest.mark.parametrize('extremum', ['layer', 'channel', 'fixed'])
def test_an_empty_batch_leaves_the_average(extremum):
    """As of a head without proposals."""
    layer = HoyerSpike(2, extremum)
    layer(torch.rand(2, 2, 3, 3) + 0.1)
    before = copy.deepcopy(layer.state_dict())
    u = torch.zeros(0, 2, 3, 3, requires_grad=True)
    with record_hoyer_squares(layer) as squares:
        spikes = layer(u)
    (spikes.sum() + squares[0]).backward()
    assert spikes.shape == u.grad.shape == u.shape and squares[0] == layer.threshold.grad == 0
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())
    check_potentials(layer)


@pytest.mark.parametrize('threshold, dtype', [(1e-6, torch.float16), (1e-40, torch.float32)])
def test_a_tiny_threshold_has_no_gradient_outside_the_box(threshold, dtype):
    """h / v is more than the type can hold."""
    layer = HoyerSpike(threshold=threshold)
    u = torch.tensor([[1.0, -1.0, 0.0]], dtype=dtype, requires_grad=True)
    layer(u).sum().backward()
    assert u.grad.tolist() == [[0, 0, 0]]


def test_a_silent_channel_alone_keeps_its_average():
    layer = HoyerSpike(2, 'channel')
    u = torch.rand(2, 2, 3, 3) + 0.1
    u[:, 1] = -1
    layer(u)
    assert layer.running_weight.tolist() == pytest.approx([0.1, 0])
    assert layer.running_extremum[0] > 0 == layer.running_extremum[1]
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # the layer is trained, that channel is merely dead
        spikes = layer.eval()(torch.tensor([1.0, 0.99, 1.0, 1.0]).view(2, 2, 1, 1))
    assert spikes.flatten().tolist() == [1, 0, 1, 1]  # the clip threshold is its level


def test_all_potentials_saturated_fire_when_saturated_are_excluded():
    layer = HoyerSpike(saturated='exclude')
    assert layer(torch.full((1, 1, 2, 2), 3.0)).eq(1).all()
    assert layer.running_weight.item() == 0


def test_nan_leaves_the_average_alone():
    layer = HoyerSpike()
    layer(torch.rand(1, 1, 4, 4))
    before = layer.running_extremum.clone()
    spikes = layer(torch.full((1, 1, 4, 4), float('nan')))
    assert torch.equal(layer.running_extremum, before) and spikes.eq(0).all()


def test_untrained_evaluation_fires_at_the_clip_threshold_and_can_be_found():
    net = nn.Sequential(HoyerSpike(threshold=0.5), HoyerSpike()).eval()
    spikes = net[0](torch.tensor([[[[0.2, 0.4, 0.5, -1.0]]]]))
    assert spikes.flatten().tolist() == [0, 0, 1, 0]
    assert untrained_layers(net) == ['0', '1']
    net.train()[0](torch.rand(1, 1, 4, 4))
    assert untrained_layers(net) == ['1']


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_sums_are_kept_in_float32_under_amp(dtype):
    # 4096 entries of 0.5: in float16 the running sum of 2048 + 0.5 would stand still.
    layer = HoyerSpike()
    u = torch.full((1, 1, 64, 64), 0.5, dtype=dtype, requires_grad=True)
    with record_hoyer_squares(layer) as squares:
        spikes = layer(u)
    spikes.sum().backward()
    assert spikes.dtype == dtype and spikes.eq(1).all() and u.grad.dtype == dtype
    assert squares[0].dtype == torch.float32 and squares[0].item() == pytest.approx(4096)
    assert layer.running_extremum.item() == pytest.approx(0.05)
    assert layer.threshold.grad.item() == pytest.approx(-0.5 * 0.5 * 4096)


def test_gradient_of_the_threshold_does_not_overflow_in_half_precision():
    # Each saturated potential adds to it; their sum, 4e5 here, is beyond float16.
    layer = HoyerSpike(threshold=0.5)
    u = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0)).half()
    with record_hoyer_squares(layer) as squares:
        layer(u)
    (1e2 * squares[0]).backward()
    v = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    clipped = torch.minimum(u.double(), v)
    (1e2 * clipped.sum() ** 2 / clipped.square().sum()).backward()
    assert abs(v.grad) > torch.finfo(torch.float16).max
    assert layer.threshold.grad.item() == pytest.approx(v.grad.item(), rel=1e-3)


def test_a_layer_that_does_not_track_leaves_its_buffers():
    layer, u = HoyerSpike(), torch.rand(2, 3, 4, 4)
    expected = layer(u)
    before = copy.deepcopy(layer.state_dict())
    layer.tracking = False
    with record_hoyer_squares(layer) as squares:
        assert torch.equal(layer(u), expected)
    assert not squares
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())


def test_recordings_may_be_nested_and_are_not_copied():
    layer = HoyerSpike()
    with record_hoyer_squares(layer) as outer:
        layer(torch.rand(2, 3, 4, 4))
        with record_hoyer_squares(layer) as inner:
            layer(torch.rand(2, 3, 4, 4))
            copy.deepcopy(layer)(torch.rand(2, 3, 4, 4))
        layer(torch.rand(2, 3, 4, 4))
    layer(torch.rand(2, 3, 4, 4))
    assert (len(outer), len(inner)) == (3, 1) and outer[1] is inner[0]


def test_a_network_without_openmmlab():
    """The folder alone is enough, in a process that cannot import the rest."""
    code = f"""
import importlib.util, sys
for name in ('mmengine', 'mmcv', 'mmdet', 'hoyer_det'):
    sys.modules[name] = None
folder = {str(SPIKING)!r}
spec = importlib.util.spec_from_file_location('spiking', folder + '/__init__.py')
spiking = sys.modules['spiking'] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(spiking)
import torch
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), spiking.HoyerSpike())
with spiking.record_hoyer_squares(net) as squares:
    out = net(torch.rand(2, 3, 8, 8))
(out.sum() + sum(squares)).backward()
assert net[0].weight.grad.any() and set(out.unique().tolist()) <= {{0, 1}}
outside = {{n.split('.')[0] for n in sys.modules}} & {{'mmengine', 'mmcv', 'mmdet', 'hoyer_det'}}
assert all(sys.modules[n] is None for n in outside)
print('done')
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout == 'done\n', result.stderr


def test_examples_of_the_docstrings():
    for module in (hoyer_module, neuron_module):
        names = vars(module) | {'torch': torch}
        assert doctest.testmod(module, extraglobs=names).failed == 0


def test_a_trained_layer_can_be_traced_from_its_first_call():
    layer = HoyerSpike(3, 'channel').train()
    layer(torch.rand(2, 3, 4, 4))
    fresh = HoyerSpike(3, 'channel').eval()
    fresh.load_state_dict(layer.state_dict())
    u = torch.rand(2, 3, 5, 5)
    with torch.no_grad():
        traced = torch.jit.trace(fresh, torch.rand(2, 3, 4, 4))
        assert torch.equal(traced(u), layer.eval()(u))


def test_channels_are_learnt_from_the_first_batch_or_checkpoint():
    layer = HoyerSpike(extremum='channel')
    held = layer.running_extremum
    layer(torch.rand(2, 5, 3, 3))
    assert layer.running_extremum is held and held.shape == (5,)
    fresh = HoyerSpike(extremum='channel')
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.running_extremum, layer.running_extremum)
    with pytest.raises(ValueError, match='4 channels.*made for 5'):
        layer(torch.rand(2, 4, 3, 3))


def test_shapes_without_space():
    layer = HoyerSpike(3, 'channel')
    u = torch.tensor([[0.2, 0.5, 0.9], [0.6, 0.5, -0.1]])
    # Channel extrema: 0.4 / 0.8 = 0.5, 0.5, 0.9.
    assert layer(u).tolist() == [[0, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(extremum='row'), 'extremum'),
        (dict(saturated='keep'), 'saturated'),
        (dict(threshold=0.0), 'threshold'),
        (dict(momentum=0.0), 'momentum'),
        (dict(extremum_scale=-1.0), 'extremum_scale'),
        (dict(num_features=0), 'num_features'),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f'HoyerSpike: {message}'):
        HoyerSpike(**arguments)


def test_an_exponential_average_of_the_model_keeps_the_firing_level():
    torch.manual_seed(0)
    layer = HoyerSpike(2, 'channel')
    averaged = ExponentialMovingAverage(layer, momentum=0.5, update_buffers=True)
    for _ in range(4):
        layer(torch.rand(4, 2, 8, 8) + 0.1)
        averaged.update_parameters(layer)
    levels = [m.running_extremum / m.running_weight for m in (layer, averaged.module)]
    torch.testing.assert_close(*levels, rtol=0.05, atol=0)
