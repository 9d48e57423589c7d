"""Noise on membrane potentials: its scale, its seed, and what it refuses."""

import pytest
import torch
from hoyer_det.analysis import noise, noise_curve, potential_noise
from hoyer_det.analysis.noise import NOTHING_DETECTED
from hoyer_det.spiking import HoyerSpike
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.data import DataLoader


class Watch(HoyerSpike):
    """Keeps what it was given."""

    def forward(self, potential):
        self.seen = potential
        return potential


def noisy(net, x, sigma, seed=0):
    with potential_noise(net, sigma, seed):
        net(x)
    return [layer.seen - x for layer in net]


def test_noise_is_relative_to_the_size_of_each_threshold():
    net = nn.Sequential(Watch(threshold=-4.0), Watch(threshold=0.5))
    x = torch.zeros(1, 1, 200, 200)
    first = noisy(net, x, 0.25)[0]
    assert first.std().item() == pytest.approx(1.0, rel=0.02)
    assert first.mean().item() == pytest.approx(0.0, abs=0.02)
    second = net[1].seen - net[0].seen
    assert second.std().item() == pytest.approx(0.125, rel=0.02)
    # The layers do not share one pattern.
    assert torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].abs() < 0.02


def test_the_seed_decides_and_nothing_stays():
    net = nn.Sequential(Watch())
    x = torch.zeros(1, 1, 4, 4)
    first, again, other = (noisy(net, x, 0.5, seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    # In units of the threshold the pattern does not depend on the threshold or on sigma.
    net[0].threshold.data.fill_(2.0)
    torch.testing.assert_close(noisy(net, x, 0.25, 3)[0], first)
    net(x)
    assert torch.equal(net[0].seen, x)
    assert torch.equal(noisy(net, x, 0.0)[0], x)


def test_a_network_without_neurons_is_refused():
    with pytest.raises(ValueError, match='no HoyerSpike layer'), potential_noise(nn.ReLU(), 0.1):
        pass


def test_curve_starts_without_noise_and_takes_the_first_map():
    net = nn.Sequential(Watch())
    strengths = []

    def run(model):
        model(torch.zeros(1, 1, 50, 50))
        strengths.append(model[0].seen.std().item())
        if strengths[-1] > 0.5:
            return {'time': 1.0, NOTHING_DETECTED: 0.0}
        return {'time': 1.0, 'voc/mAP': 1 - strengths[-1]}

    metric, curve = noise_curve(net, run, [1.0, 0.2])
    assert metric == 'voc/mAP' and list(curve) == [0.0, 0.2, 1.0]
    assert curve[0.0] == 1.0 and curve[0.2] == pytest.approx(0.8, abs=0.02) and curve[1.0] == 0.0
    assert strengths == pytest.approx([0.0, 0.2, 1.0], rel=0.1)
    with pytest.raises(ValueError, match='no mAP'):
        noise_curve(net, lambda model: {'recall': 1.0}, [0.1])


class Detects(nn.Module):
    """Finds so many boxes in each image."""

    def __init__(self, boxes: int) -> None:
        super().__init__()
        self.boxes = boxes

    def test_step(self, batch):
        found = InstanceData(scores=torch.ones(self.boxes))
        return [DetDataSample(pred_instances=found) for _ in batch]


@pytest.mark.parametrize('boxes', [0, 1])
def test_without_any_detection_map_is_0_and_says_so(monkeypatch, boxes):
    class Coco:
        def process(self, data_samples, data_batch):
            pass

        def evaluate(self, size):  # as CocoMetric where nothing was detected
            return {'coco/bbox_mAP': 0.5} if boxes else {}

    loader = DataLoader(range(3))
    monkeypatch.setattr(noise, 'build_evaluation', lambda cfg, split: (loader, Coco()))
    found = noise.find_map(noise.evaluate(Detects(boxes), Config(), 'val'), '--evaluate')
    assert found == (('coco/bbox_mAP', 0.5) if boxes else (NOTHING_DETECTED, 0.0))
