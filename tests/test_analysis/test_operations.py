"""Operation counts against a hand calculation."""

import pytest
import torch
from hoyer_det.analysis import EnergyTable, count_operations, energy
from torch import nn


class Step(nn.Module):
    def forward(self, x):
        return (x > 0).to(x.dtype)


def test_counts_of_a_small_network_equal_a_hand_calculation():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False),  # 4x4 -> 2x2
        Step(),
        nn.Conv2d(2, 4, 2, groups=2, bias=False),  # 2x2 -> 1x1
        nn.Flatten(),
        nn.Linear(4, 3, bias=False),
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 1, 3, 3))
        net[2].weight.fill_(1.0)
    image = torch.ones(1, 1, 4, 4)
    image[0, 0, 0, 0] = 0  # read by one of the four 3x3 windows
    first, second, third = count_operations(net, net, [image, image])
    # 4 positions x 9 taps x 2 filters; the zero is missed once by each filter.
    assert (first.dense, first.effective, first.binary) == (2 * 72, 2 * 70, True)
    # Channel 0 fires at all 4 positions, channel 1 never; 2 filters a group.
    assert (second.dense, second.effective, second.binary) == (2 * 16, 2 * 8, True)
    # The first two sums are 4, the others 0: not binary.
    assert (third.dense, third.effective, third.binary) == (2 * 12, 2 * 6, False)
    assert [layer.images for layer in (first, second, third)] == [2, 2, 2]
    table = EnergyTable(multiply_accumulate=10.0, accumulate=1.0, source='test')
    # An image: 70 + 8 additions and 12 multiply-accumulates.
    assert energy([first, second, third], table) == pytest.approx((78 + 120) * 1e-6)


def test_a_single_value_between_0_and_1_is_not_binary():
    net = nn.Conv2d(1, 1, 1)
    image = torch.ones(1, 1, 8, 8)
    image[0, 0, 3, 3] = 0.5
    (layer,) = count_operations(net, net, [torch.ones(1, 1, 8, 8), image])
    assert not layer.binary
