"""Which rows of a report are explained."""

import torch
from hoyer_det.analysis.explanations import explanations, neuron_explanations
from hoyer_det.analysis.measure import Measurement
from hoyer_det.analysis.neurons import NeuronRecorder
from hoyer_det.analysis.operations import OperationCounter
from hoyer_det.spiking import HoyerSpike
from torch import nn


class Net(nn.Module):
    """Convolution, neuron, max pooling, and a convolution that runs on two levels."""

    def __init__(self):
        super().__init__()
        self.stem, self.spike = nn.Conv2d(3, 8, 3, padding=1), HoyerSpike()
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)

    def forward(self, image):
        spikes = self.spike(self.stem(image))
        return self.head(self.pool(spikes)), self.head(spikes)


def measured(scale: float) -> Measurement:
    torch.manual_seed(0)
    net = Net().eval()
    net.spike.running_weight.fill_(1.0)
    net.spike.running_extremum.fill_(scale)
    counter, recorder = OperationCounter(net), NeuronRecorder(net)
    for _ in range(2):
        with torch.no_grad(), counter.image(), recorder.image():
            net(torch.randn(1, 3, 16, 16))
    return Measurement(counter.layers, {}, [], recorder.layers, 2, {}, 0)


def test_layers():
    found = explanations(measured(0.3))
    assert found['stem'] == 'multiplies: it reads the image, which is no spikes'
    assert 'raises the density' in found['head'] and 'runs 2 times an image' in found['head']


def test_neurons():
    assert not neuron_explanations(measured(0.3))
    assert 'more often than not' in neuron_explanations(measured(-5.0))['spike']
    assert '8 of 8 channels never fired' in neuron_explanations(measured(50.0))['spike']
