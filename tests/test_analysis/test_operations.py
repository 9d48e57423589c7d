"""Operation counts against hand calculations, brute force and other projects' counters."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import CONFIGS
from hoyer_det.analysis import OperationCounter, operations, traffic
from hoyer_det.analysis.crosscheck import mmengine_dense, spikingjelly_operations
from hoyer_det.backbones import HoyerVGG
from hoyer_det.config import load_config
from hoyer_det.deploy import RoundedConv2d
from hoyer_det.spiking import HoyerSpike, LIFSpike
from mmcv.cnn.bricks import ConvWS2d
from narrow import narrow_model
from torch import nn
from torch.nn.utils import parametrizations
from torchvision.ops import DeformConv2d


class Step(nn.Module):
    def forward(self, x):
        return (x > 0).to(x.dtype)


def count(net, images):
    """Counter after a network has seen batches, each as one image."""
    counter = OperationCounter(net)
    for x in images:
        with torch.no_grad(), counter.image():
            net(x)
    return counter


def three_layers() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False),  # 4x4 -> 2x2
        Step(),
        nn.Conv2d(2, 4, 2, groups=2, bias=False),  # 2x2 -> 1x1
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 1, 3, 3))
        net[2].weight.fill_(0.3)
    return net


def notched_image() -> torch.Tensor:
    image = torch.ones(1, 1, 4, 4)
    image[0, 0, 0, 0] = 0  # read by one of the four 3x3 windows
    return image


def test_counts_of_a_small_network_equal_a_hand_calculation():
    counter = count(three_layers(), [notched_image(), torch.ones(1, 1, 4, 4)])
    first, second, third = counter.layers
    # 4 positions x 9 taps x 2 filters; the zero of the first image is missed once by each filter.
    assert (first.dense, first.effective, first.input_kind) == (2 * 72, 70 + 72, 'binary')
    # Channel 0 fires at all 4 positions, channel 1 never; 2 filters a group.
    assert (second.dense, second.effective, second.input_kind) == (2 * 16, 2 * 8, 'binary')
    # The first two sums are 4 x 0.3, the others 0.
    assert (third.dense, third.effective, third.input_kind) == (2 * 12, 2 * 6, 'real')
    assert [layer.accumulates for layer in counter.layers] == [142, 16, 0]
    assert [layer.multiply_accumulates for layer in counter.layers] == [0, 0, 24]
    assert [layer.weights for layer in counter.layers] == [18, 16, 12 + 3]
    assert [(layer.images, layer.calls) for layer in counter.layers] == [(2, 2)] * 3
    assert first.densities == [15 / 16, 1.0]
    assert second.densities == third.densities == [0.5, 0.5]
    assert [layer.name for layer in counter.layers] == ['0', '2', '4']
    assert not counter.not_counted and not counter.not_run


def test_additions_of_shortcuts_are_counted():
    net = HoyerVGG(11, 1 / 16, out_indices=(1, 2), shortcut=True).eval()
    additions = [
        layer for layer in count(net, [torch.randn(1, 3, 32, 32)]).layers if layer.additions
    ]
    # Behind the pooling of stage 1, in stage 2 before and behind it; 8, 16 and 16 channels.
    assert [layer.name for layer in additions] == [f'stages.{n}:add' for n in ('1.0', '2.0', '2.1')]
    sizes = [8 * 8 * 8, 16 * 8 * 8, 16 * 4 * 4]
    assert [layer.additions for layer in additions] == sizes
    assert [layer.inputs for layer in additions] == sizes
    assert [layer.written_spikes for layer in additions] == sizes


@pytest.mark.parametrize(
    'layer',
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2),
        nn.Conv2d(4, 6, 3, padding='same', groups=2),
        nn.Conv2d(4, 8, (1, 3), padding=(0, 1), groups=4, bias=False),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    ],
)
def test_effective_operations_equal_the_products_with_an_active_input(layer):
    x = (torch.rand(2, 4, 7, 9, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    (counted,) = count(layer, [x]).layers
    # With all weights 1 and no bias every active input adds 1 for each product it is part of.
    with torch.no_grad():
        layer.weight.fill_(1.0)
        if layer.bias is not None:
            layer.bias.zero_()
        assert counted.effective == int(layer(x).sum())
        if isinstance(layer, nn.Conv2d):
            assert counted.dense == layer(x).numel() * layer.weight[0].numel()
        else:
            assert counted.dense == x.numel() * layer.weight[0].numel()


def test_convolution_that_is_not_exact_counts_whole_taps(monkeypatch):
    """As those by Winograd's algorithm, which cuDNN may choose."""
    aten = operations.aten

    def inexact(*args):
        return aten.convolution(*args) - 1e-5

    fake = SimpleNamespace(convolution=inexact, add=aten.add, add_=aten.add_)
    monkeypatch.setattr(operations, 'aten', fake)
    (layer,) = count(nn.Conv2d(2, 3, 3), [torch.ones(1, 2, 5, 5)]).layers
    assert layer.effective == layer.dense == 9 * 18 * 3


def test_what_an_input_is_holds_for_all_images():
    net = nn.Conv2d(1, 1, 1)
    ones = torch.ones(1, 1, 8, 8)
    for value, kind in ((0.5, 'real'), (3.0, 'count'), (17.0, 'real'), (-1.0, 'real')):
        other = ones.clone()
        other[0, 0, 3, 3] = value
        for images in ([ones, other], [other, ones]):
            (layer,) = count(net, images).layers
            assert layer.input_kind == kind
            assert layer.accumulates == 0 and layer.multiply_accumulates == 128


class Mixed(nn.Module):
    """Two neurons, a residual, a shared layer, a functional convolution and attention."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 2, 1, bias=False)
        self.spike = HoyerSpike(extremum='fixed')
        self.second = nn.Conv2d(2, 2, 1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.kernel = nn.Parameter(torch.ones(3, 2, 1, 1))
        self.spare = nn.Linear(2, 2)
        self.spike.running_weight.fill_(1.0)
        self.spike.running_extremum.fill_(1.0)

    def forward(self, x):
        u = self.first(x)
        u = u + self.second(self.spike(self.pool(u))).repeat(1, 1, 2, 2)
        y = F.conv2d(u, self.kernel).flatten(2)
        return y.transpose(1, 2) @ y


def test_functional_operations_residuals_and_layers_that_do_not_run():
    counter = count(Mixed().eval(), [torch.rand(1, 2, 4, 4)])
    layers = {layer.name: layer for layer in counter.layers}
    assert list(layers) == ['first', 'second', ':add', ':convolution', ':matmul']
    assert layers[':convolution'].dense == 16 * 2 * 3
    assert layers[':convolution'].weights == 6
    assert layers[':matmul'].dense == 16 * 3 * 16
    assert layers[':matmul'].inputs == 2 * 3 * 16 and layers[':matmul'].weights == 0
    assert layers[':add'].additions == 2 * 16 and layers[':add'].dense == 0
    assert counter.not_run == ['spare']
    # The pooled potentials leave as spikes; the sum reads its other operand and is written.
    written = {name: (layer.written_spikes, layer.written_real) for name, layer in layers.items()}
    assert written == {
        'first': (8, 0),
        'second': (0, 0),
        ':add': (0, 32),
        ':convolution': (0, 48),
        ':matmul': (0, 256),
    }


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(2, 2, 1, bias=False) for _ in range(2))
        self.spike = HoyerSpike(extremum='fixed')
        self.spike.running_weight.fill_(1.0)
        self.spike.running_extremum.fill_(1.0)

    def forward(self, x):
        stream = self.layers[0](x)
        stream = stream + self.layers[1](x)
        return self.spike(stream)


def test_a_sum_that_feeds_a_neuron_is_written_for_the_next_sum_as_well():
    layers = count(Residual().eval(), [torch.rand(1, 2, 4, 4)]).layers
    written = {layer.name: (layer.written_spikes, layer.written_real) for layer in layers}
    assert written == {'layers.0': (0, 32), 'layers.1': (0, 0), ':add': (32, 32)}


class Leaky(nn.Module):
    """Convolution, leaky neuron over four time steps, convolution."""

    def __init__(self):
        super().__init__()
        self.first, self.spike = nn.Conv2d(1, 2, 1), LIFSpike(4)
        self.second = nn.Conv2d(2, 3, 1)

    def forward(self, x):
        return self.second(self.spike(self.first(x.repeat(4, 1, 1, 1))))


def test_potential_of_a_leaky_neuron_is_written_and_read_once_for_each_step_after_the_first():
    first, second = count(Leaky().eval(), [torch.rand(1, 1, 5, 4)]).layers
    # 40 neurons; their additions are part of the neuron.
    assert (first.written_spikes, first.written_real, first.potentials) == (4 * 40, 0, 3 * 40)
    assert (second.written_real, second.potentials) == (4 * 60, 0)
    moved = traffic(first, 'fp32')
    assert moved.reads == (4 * 20 + 3 * 40) * 4
    assert moved.writes == 4 * 40 / 8 + 3 * 40 * 4
    # A ReLU network of this shape keeps none.
    assert traffic(first, 'fp32', spiking=False).reads == 4 * 20 * 4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.inner(x[:, :5], x, x)[0]


def test_views_of_a_parameter_are_weights_each_once():
    counter = count(Attention().eval(), [torch.rand(1, 7, 8)] * 2)
    linear, products = counter.layers
    # Projections of 5 queries, 7 keys and values, and 5 outputs; all parameters, none twice.
    assert linear.dense == 2 * (5 * 64 + 7 * 128 + 5 * 64) and linear.input_kind == 'real'
    assert linear.weights == 4 * 64 + 4 * 8
    assert linear.inputs == 2 * (5 * 8 + 7 * 8 + 5 * 8)
    assert products.kind == 'matmul' and products.weights == 0
    # out_proj is never called, but its weights are used.
    assert not counter.not_run and not counter.not_counted


@pytest.mark.parametrize(
    'layer',
    [
        ConvWS2d(4, 8, 3),
        RoundedConv2d(4, 8, 3, bits=4),
        parametrizations.weight_norm(nn.Conv2d(4, 8, 3)),
        parametrizations.weight_norm(nn.Linear(5, 8)),
    ],
)
def test_weights_that_are_computed_anew_count_once_and_are_no_inputs(layer):
    net = nn.Sequential(layer)
    x = torch.ones(1, 4, 5, 5)
    counter = count(net, [x, x])
    (counted,) = counter.layers
    assert counted.name == '0' and counted.input_kind == 'binary'
    assert counted.inputs == 2 * x.numel()
    assert counted.weights == layer.weight.numel() + 8
    assert not counter.not_counted and not counter.not_run


class Padded(nn.Module):
    """A 1x1 kernel that a branch of RepVGG pads to 3x3 before it is used."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(2, 4, 1, 1))

    def forward(self, x):
        return F.conv2d(x, F.pad(self.kernel, (1, 1, 1, 1)) * 0.5, padding=1)


def test_kernel_that_is_computed_from_weights_alone_is_a_weight():
    x = torch.ones(1, 4, 5, 5)
    (counted,) = count(Padded(), [x, x]).layers
    assert counted.inputs == 2 * 100 and counted.input_kind == 'binary'
    assert counted.weights == 2 * 4 * 9


class Predicted(nn.Module):
    """Masks by kernels that the network predicts, one for each object, as in SOLOv2."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 8, 1)
        self.kernels = nn.Linear(1, 8)

    def forward(self, x):
        image, objects = x
        kernels = self.kernels.weight.new_zeros(objects, 8)
        kernels[:] = self.kernels(torch.ones(objects, 1) * image.mean())
        return F.conv2d(self.features(image), kernels.view(objects, 8, 1, 1))


def test_kernels_that_the_network_predicts_are_inputs():
    net = Predicted()
    images = [(torch.rand(1, 3, 4, 4), objects) for objects in (5, 6, 7)]
    layers = {layer.name: layer for layer in count(net, images).layers}
    masks = layers[':convolution']
    # 18 kernels of 8 numbers, and three times 8 features at 16 places.
    assert masks.weights == 0 and masks.inputs == 18 * 8 + 3 * 8 * 16
    assert masks.dense == 18 * 8 * 16 and masks.written_real == 18 * 16
    assert masks.input_kind == 'real' and masks.calls == 3
    assert layers['features'].weights == 3 * 8 + 8 and layers['kernels'].weights == 8 + 8


class Borrowed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lender, self.spare = nn.Conv2d(2, 3, 1), nn.Linear(2, 2)

    def forward(self, x):
        return F.conv2d(x, self.lender.weight)


def test_a_layer_whose_weights_another_used_did_run():
    counter = count(Borrowed(), [torch.rand(1, 2, 4, 4)])
    assert [layer.name for layer in counter.layers] == [':convolution']
    assert counter.not_run == ['spare'] and not counter.not_counted


@pytest.mark.parametrize('bias', [True, False])
def test_bias_of_a_linear_layer_counts_whatever_the_layout_of_its_input(bias):
    layer = nn.Linear(8, 4, bias)
    x = torch.rand(2, 8, 3)
    for inputs in (x.transpose(1, 2), x.transpose(1, 2).contiguous(), x[0, :, 0]):
        (counted,) = count(layer, [inputs, inputs]).layers
        assert counted.weights == 8 * 4 + 4 * bias


class Integral(nn.Module):
    """The expectation of a distribution, as GFL's head takes it."""

    def __init__(self):
        super().__init__()
        self.register_buffer('project', torch.arange(4.0))

    def forward(self, x):
        return x @ self.project


def test_a_product_with_a_vector_is_counted():
    (layer,) = count(Integral(), [torch.rand(5, 4)]).layers
    assert (layer.dense, layer.inputs, layer.weights, layer.written_real) == (20, 20, 4, 5)


def test_outputs_of_relu_are_counted_after_the_pooling():
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(3, 1, 1))
    first, second = count(net, [torch.rand(1, 1, 4, 4)]).layers
    assert (first.written_real, second.written_real) == (12, 4)


def test_density_before_max_pooling():
    net = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = x[0, 0, 2, 2] = 1
    first, second = count(net, [x, torch.zeros(1, 1, 4, 4)]).layers
    assert first.density_before_pooling == 2 / 32 and first.active / first.inputs == 2 / 8
    assert second.density_before_pooling is None


class Deformable(nn.Module):
    def __init__(self):
        super().__init__()
        self.offset = nn.Conv2d(2, 8, 1)
        self.deform = DeformConv2d(2, 2, 2, padding=1)
        self.table = nn.Embedding(3, 4)

    def forward(self, x):
        self.table(torch.tensor([0]))
        return self.deform(x, F.pad(self.offset(x), (0, 1, 0, 1)))


def test_what_cannot_be_counted_is_named_with_the_reason():
    counter = count(Deformable(), [torch.rand(1, 2, 4, 4)])
    assert [layer.name for layer in counter.layers] == ['offset']
    assert sorted(counter.not_counted) == ['deform', 'table']
    assert 'deformable convolution' in counter.not_counted['deform']
    assert 'Embedding' in counter.not_counted['table']


def test_a_name_that_begins_another_hides_nothing():
    net = nn.ModuleDict({'deform': nn.Bilinear(2, 2, 2), 'deform1': DeformConv2d(2, 2, 1)})

    def forward(x):
        return net['deform'](x[..., 0, 0], net['deform1'](x, torch.zeros(1, 2, 4, 4))[..., 0, 0])

    net.forward = forward
    assert sorted(count(net, [torch.rand(1, 2, 4, 4)]).not_counted) == ['deform', 'deform1']


def test_nothing_listens_afterwards():
    net = three_layers()
    counter = count(net, [notched_image()])
    net(notched_image())
    assert counter.layers[0].calls == 1
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


# ------------------------------------------------------------------------------------------------
# Other projects' counters
# ------------------------------------------------------------------------------------------------


class Wrapped(nn.Module):
    """Gives a network the interface of a detector."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def test_step(self, x):
        return self.model(x)


def spikingjelly(model: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    pytest.importorskip(
        'spikingjelly.activation_based.op_counter', reason='SpikingJelly 2.0 is extra'
    )
    return spikingjelly_operations(Wrapped(model), x)


def test_mmengine_counts_the_small_network_like_the_hand_calculation():
    assert mmengine_dense(three_layers(), notched_image()) == (72 + 16 + 12, {})


def test_spikingjelly_counts_the_small_network_like_the_hand_calculation():
    assert spikingjelly(three_layers(), notched_image()) == (70 + 8, 12)


def detector(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A narrow detector that fires as after training, at the clip threshold, and an image."""
    model, side = narrow_model(load_config(CONFIGS / name))
    for layer in model.modules():
        if isinstance(layer, HoyerSpike):
            layer.running_weight.fill_(1.0)
            layer.running_extremum.fill_(1.0)
    return model.eval(), torch.randn(1, 3, side, side)


def test_dense_operations_of_ssd300_on_vgg16_equal_those_of_mmengine():
    model, x = detector('hoyer_ssd_voc.py')
    assert x.shape[-1] == 300
    dense, beside = mmengine_dense(model, x)
    counter = OperationCounter(model)
    with torch.no_grad(), counter.image():
        model(x)
    assert sum(layer.dense for layer in counter.layers) == dense
    # The whole difference: MMEngine counts two operations for each output of a norm.
    outputs = sum(layer.written_spikes for layer in counter.layers)
    assert beside == {'batch_norm': 2 * outputs}


def test_operations_of_a_detector_equal_those_of_spikingjelly():
    model, x = detector('hoyer_ssd_shapes.py')
    counter = OperationCounter(model)
    with torch.no_grad(), counter.image():
        model(x)
    here = (
        sum(layer.accumulates for layer in counter.layers),
        sum(layer.multiply_accumulates for layer in counter.layers),
    )
    assert min(here) > 0
    assert spikingjelly(model, x) == here
