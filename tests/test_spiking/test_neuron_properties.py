"""What holds for the neuron whatever the potentials are, against the formula in float64."""

import numpy as np
import torch
from hoyer_det.spiking import HoyerSpike, hoyer_extremum, hoyer_square, record_hoyer_squares
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

settings.register_profile('few', max_examples=40, derandomize=True, deadline=None, database=None)
few = settings.get_profile('few')
shapes = arrays.array_shapes(min_dims=2, max_dims=4, max_side=5)
potentials = arrays.arrays(np.float32, shapes, elements=st.floats(-3, 3, width=16)).map(
    torch.from_numpy
)
thresholds = st.sampled_from([0.25, 0.7, -1.3, 2.0])
layers = st.builds(
    dict,
    extremum=st.sampled_from(['layer', 'channel', 'fixed']),
    saturated=st.sampled_from(['clip', 'exclude']),
    extremum_scale=st.sampled_from([0.8, 1.0]),
)


def step(u: torch.Tensor, threshold: float, options: dict) -> tuple[torch.Tensor, ...]:
    """Return spikes, Hoyer square, extremum and the gradients of u and of the threshold."""
    layer = HoyerSpike(threshold=threshold, momentum=1.0, **options)
    u = u.clone().requires_grad_()
    with record_hoyer_squares(layer) as (squares):
        spikes = layer(u)
    spikes.sum().backward()
    return (
        spikes.detach(),
        squares[0].detach(),
        layer.running_extremum,
        u.grad,
        layer.threshold.grad,
    )


def level(u: torch.Tensor, threshold: float, options: dict) -> torch.Tensor:
    """Return z and the firing level of the formula, in float64."""
    z = u.double() / abs(threshold)
    c = z.clamp(0, 1)
    if options['saturated'] == 'exclude':
        c = c.masked_fill(z >= 1, 0)
    dims = [d for d in range(u.dim()) if d != 1 or options['extremum'] != 'channel']
    sums = c.sum(dims, keepdim=True), c.square().sum(dims, keepdim=True)
    extremum = torch.where(sums[0] > 0, sums[1] / sums[0].clamp(min=1e-300), 1.0)
    if options['extremum'] == 'fixed':
        extremum = torch.ones_like(extremum)
    return z, (options['extremum_scale'] * extremum).expand_as(z)


@few
@given(potentials, thresholds, layers)
def test_spikes_are_those_of_the_formula(u, threshold, options):
    spikes = step(u, threshold, options)[0]
    z, fires_from = level(u, threshold, options)
    clear = (z - fires_from).abs() > 1e-5
    assert torch.equal(spikes[clear] > 0, (z >= fires_from)[clear])
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}


@few
@given(potentials, thresholds, layers)
def test_gradient_is_the_box_of_the_formula(u, threshold, options):
    *_, grad, grad_threshold = step(u, threshold, options)
    z = u / abs(threshold)
    clear = (z - 2).abs() > 1e-5
    box = ((z > 0) & (z <= 2)).float() * 0.5 / abs(threshold)
    torch.testing.assert_close(grad[clear], box[clear])
    expected = -(grad.double() * u.double()).sum() / threshold
    torch.testing.assert_close(grad_threshold, expected.float(), rtol=1e-4, atol=1e-5)


@few
@given(potentials, thresholds, layers, st.integers(0, 5))
def test_order_of_the_batch_does_not_matter(u, threshold, options, seed):
    order = torch.randperm(len(u), generator=torch.Generator().manual_seed(seed))
    spikes, square, extremum, grad, _ = step(u, threshold, options)
    spikes2, square2, extremum2, grad2, _ = step(u[order], threshold, options)
    torch.testing.assert_close(square, square2)
    torch.testing.assert_close(extremum, extremum2)
    assert torch.equal(grad[order], grad2)
    z, fires_from = level(u, threshold, options)
    clear = ((z - fires_from).abs() > 1e-5)[order]
    assert torch.equal(spikes[order][clear], spikes2[clear])


@few
@given(potentials, thresholds, layers, st.integers(-6, 6))
def test_units_of_potential_and_threshold_do_not_matter(u, threshold, options, exponent):
    unit = 2.0**exponent  # which scales without rounding
    spikes, square, extremum, grad, _ = step(u, threshold, options)
    spikes2, square2, extremum2, grad2, _ = step(u * unit, threshold * unit, options)
    assert torch.equal(spikes, spikes2)
    torch.testing.assert_close(square, square2)
    torch.testing.assert_close(extremum, extremum2)
    torch.testing.assert_close(grad, grad2 * unit)


@few
@given(potentials, thresholds, layers)
def test_sign_of_the_threshold_does_not_matter(u, threshold, options):
    spikes, square, extremum, grad, grad_threshold = step(u, threshold, options)
    others = step(u, -threshold, options)
    for ours, theirs in zip((spikes, square, extremum, grad), others, strict=False):
        assert torch.equal(ours, theirs)
    assert torch.equal(grad_threshold, -others[4])


@few
@given(potentials)
def test_bounds_of_square_and_extremum(u):
    c = u.clamp(0, 1)
    assume(c.any())
    positive = c[c > 0]
    square, extremum = float(hoyer_square(c)), float(hoyer_extremum(c))
    assert 1 - 1e-5 <= square <= len(positive) * (1 + 1e-5)
    assert float(positive.min()) * (1 - 1e-5) <= extremum <= float(positive.max()) * (1 + 1e-5)
