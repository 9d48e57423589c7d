"""The spiking part as a NIR graph: read back and run by a walker that knows NIR's definitions alone."""

import numpy as np
import pytest
import torch
from hoyer_det.backbones import HoyerVGG
from hoyer_det.backbones.blocks import SpikingConvBlock
from hoyer_det.deploy import fold
from mmdet.models.data_preprocessors import DetDataPreprocessor
from tiny_detectors import SIDE, tiny_config, tiny_detector
from torch import Tensor, nn
from torch.nn import functional as F

nir = pytest.importorskip('nir')
from hoyer_det.deploy.nir_graph import to_nir  # noqa: E402


def run(graph: 'nir.NIRGraph', image: Tensor) -> list[Tensor]:
    """Run a graph on (N, C, H, W) in float64, by the definitions of neuroir.org."""
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        sources[target].append(source)
    values: dict[str, Tensor] = {}

    def pair(value) -> tuple[int, int]:
        return tuple(np.broadcast_to(value, 2).tolist())

    def value(name: str) -> Tensor:
        if name not in values:
            node = graph.nodes[name]
            x = sum(value(source) for source in sources[name])
            if isinstance(node, nir.Input):
                x = image.double()
            elif isinstance(node, nir.Conv2d):
                weight, bias = (torch.from_numpy(n).double() for n in (node.weight, node.bias))
                stride, padding, dilation = map(pair, (node.stride, node.padding, node.dilation))
                x = F.conv2d(x, weight, bias, stride, padding, dilation, int(node.groups))
            elif isinstance(node, nir.SumPool2d):
                kernel = pair(node.kernel_size)
                x = F.avg_pool2d(x, kernel, pair(node.stride), pair(node.padding))
                x = (x * kernel[0] * kernel[1]).round()
            elif isinstance(node, nir.Scale):
                x = x * torch.from_numpy(node.scale).double()
            elif isinstance(node, nir.Threshold):
                x = (x > torch.from_numpy(node.threshold).double()).double()
            else:
                assert isinstance(node, nir.Output)
            values[name] = x
        return values[name]

    return [value(name) for name in graph.nodes if isinstance(graph.nodes[name], nir.Output)]


def test_spikes_are_equal_bit_for_bit(tmp_path):
    # Pooling before neurons, of them some inverted, and pooling of spikes; strides, dilation.
    model = fold(tiny_detector(tiny_config('ssd')), 4, size=(SIDE, SIDE))
    nir.write(tmp_path / 'm.nir', to_nir(model, (SIDE, SIDE), zero=116, classes='a, b'))
    graph = nir.read(tmp_path / 'm.nir')
    assert graph.metadata['zero'] == 116 and graph.metadata['classes'] == 'a, b'
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE)).float() - 116
    with torch.no_grad():
        wanted = model.neck(model.backbone(images))
    found = run(graph, images)
    assert len(found) == len(wanted) == 3
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b.double()) and 0.02 < a.mean() < 0.98
    kinds = {type(node).__name__ for node in graph.nodes.values()}
    assert kinds == {'Input', 'Conv2d', 'SumPool2d', 'Scale', 'Threshold', 'Output'}


def test_sums_of_spikes_are_edges_to_one_node():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(
                SpikingConvBlock(channels, 4, 3, padding=1) for channels in (3, 4, 4)
            )

        def forward(self, x):
            x = self.blocks[0](x)
            return (self.blocks[2](x + self.blocks[1](x)),)

    torch.manual_seed(0)
    model = Residual()
    model.data_preprocessor = DetDataPreprocessor()  # pixels are integers
    model.train()(torch.randn(2, 3, 16, 16))
    folded = fold(model.eval(), size=(16, 16))
    images = torch.randint(-99, 99, (2, 3, 16, 16)).float()
    (found,) = run(to_nir(folded, (16, 16)), images)
    assert torch.equal(found, folded(images)[0].double()) and 0.02 < found.mean() < 0.98


@pytest.mark.parametrize(
    'name, message',
    [
        ('yolo', 'interpolate: cannot be written'),  # upsampling
        ('retinanet', r'reads max pooling of real values \(backbone.stem.pool\)'),
    ],
)
def test_what_cannot_be_written_is_named(name, message):
    model = fold(tiny_detector(tiny_config(name)), size=(SIDE, SIDE))
    with pytest.raises(ValueError, match=f'^nir: .*{message}'):
        to_nir(model, (SIDE, SIDE))


class Unwritten(nn.Module):
    def forward(self, x):
        raise NotImplementedError


def test_an_error_without_a_text_is_named():
    with pytest.raises(ValueError, match=r'^nir: Unwritten .* \(NotImplementedError in .*py, line'):
        to_nir(Unwritten(), (SIDE, SIDE))


def test_stream_past_the_convolutions_and_pooling_that_is_rounded_up_are_named():
    stream = HoyerVGG(11, 1 / 16, shortcut=True, out_indices=(1,))
    with pytest.raises(ValueError, match='^nir: HoyerVGG hands on more than spikes'):
        to_nir(fold(stream.eval()), (SIDE, SIDE))
    rounded_up = HoyerVGG(11, 1 / 16, ceil_mode=True, out_indices=(1,))
    rounded_up.data_preprocessor = DetDataPreprocessor()
    with pytest.raises(ValueError, match=r'rounded up \(ceil_mode\) from \(33, 64\) to \(17, 32'):
        to_nir(fold(rounded_up.eval()), (33, 64))
    with pytest.raises(ValueError, match='reads real values'):
        to_nir(fold(HoyerVGG(11, 1 / 16)), (SIDE, SIDE))  # of images that are not integers


def test_command_writes_the_model_of_the_zoo(tmp_path, warm):
    (ended,) = warm.run(['export', 'hoyer_ssd_shapes', 'ssd_shapes', 'm.nir'], tmp_path)
    assert ended.code == 0, ended.err
    assert 'm.nir: backbone and neck, 1 Input, 14 Conv2d' in ended.out
    graph = nir.read(tmp_path / 'm.nir')
    assert graph.metadata['channels'] == 'rgb' and graph.metadata['classes'].startswith('circle, ')
    for flags in (['--nms'], ['--engine', 'spikes'], ['--heads', 'fp32']):
        arguments = ['export', 'hoyer_ssd_shapes', 'ssd_shapes', 'm.nir', *flags]
        (ended,) = warm.run(arguments, tmp_path)
        line = f'error: {flags[0]}: does not go with m.nir, the spiking part alone\n'
        assert (ended.code, ended.err) == (1, line)
    (ended,) = warm.run(['export', 'hoyer_ssd_shapes', 'ssd_shapes', 'm.txt'], tmp_path)
    assert (ended.code, ended.err) == (1, 'error: m.txt: must end in .onnx or .nir\n')
