"""HoyerResNet: shapes against MMDetection's, structure, freezing, checkpointing, initialisation."""

import copy
from collections.abc import Callable

import pytest
import torch
from hoyer_det.backbones import HoyerResNet
from hoyer_det.spiking import HoyerSpike, record_hoyer_squares, spiking_layers
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = {18: (4, 4, 4, 4), 34: (6, 8, 12, 6), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def convs(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def train_once(net: nn.Module, seed: int = 0, size: int = 48) -> Tensor:
    """One backward pass on random images and labels; the loss reaches every level and neuron."""
    torch.manual_seed(seed)
    images = torch.randn(2, 3, size, size)
    with record_hoyer_squares(net) as squares:
        outs = net(images)
    loss = sum((out * torch.randn_like(out)).sum() for out in outs) + 1e-2 * sum(squares)
    net.zero_grad()
    loss.backward()
    return loss


def prepared(depth: int = 18, **options) -> HoyerResNet:
    """A narrow, initialised network."""
    torch.manual_seed(0)
    net = HoyerResNet(depth, **{'base_channels': 4, **options})
    net.init_weights()
    return net


def by_hand(x: Tensor, act: HoyerSpike) -> Tensor:
    """The spikes of a layer at its batch's extremum."""
    clipped = (x / act.threshold.abs()).clamp(0, 1)
    return (x / act.threshold.abs() >= clipped.square().sum() / clipped.sum()).to(x.dtype)


def normed(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """The batch, normalised by its own statistics."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    shape = (1, -1, 1, 1)
    return (x - mean) / (var + norm.eps).sqrt() * norm.weight.view(shape) + norm.bias.view(shape)


@pytest.mark.parametrize('depth', [18, 34, 50, 101])
@pytest.mark.parametrize(
    ('options', 'size'),
    [
        (dict(), (64, 96)),
        (dict(out_indices=(1, 3)), (65, 47)),
        (dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), out_indices=[2, 3]), (63, 33)),
        (dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)), (77, 51)),
        (dict(strides=(2, 1, 3, 2)), (101, 90)),
        (
            dict(
                num_stages=3,
                strides=(1, 2, 2),
                dilations=(1, 1, 1),
                out_indices=(2,),
                style='caffe',
            ),
            (50, 71),
        ),
        (dict(style='caffe', deep_stem=True, stem_channels=6), (33, 33)),
        (dict(in_channels=1, stem_channels=12), (40, 40)),
    ],
    ids=['plain', 'odd', 'dc5', 'atrous', 'strides', 'c4', 'deep', 'gray'],
)
def test_features_have_the_shapes_of_mmdetections_resnet(depth, options, size):
    options = dict(depth=depth, base_channels=4, **options)
    net = MODELS.build(dict(type='HoyerResNet', **options))
    assert isinstance(net, HoyerResNet)
    reference = MODELS.build(dict(type='ResNet', **options))
    reference.eval()
    images = torch.randn(1, options.get('in_channels', 3), *size)
    with torch.no_grad():
        shapes = [tuple(out.shape) for out in net(images)]
        assert shapes == [tuple(out.shape) for out in reference(images)]
    assert net.out_channels == tuple(shape[1] for shape in shapes)
    strides = options.get('strides', (1, 2, 2, 2))
    reductions = [4 * torch.tensor(strides[: i + 1]).prod().item() for i in range(len(strides))]
    assert net.out_strides == tuple(reductions[i] for i in net.out_indices)
    for shape, stride in zip(shapes, net.out_strides, strict=True):
        assert shape[2:] == tuple(-(-side // stride) for side in size)


@pytest.mark.parametrize('depth', [18, 34])
def test_depth_18_and_34_have_a_shortcut_for_every_single_convolution(depth):
    net = HoyerResNet(depth, base_channels=4)
    assert tuple(len(stage) for stage in net.stages) == BLOCKS[depth]
    kernels = [
        [conv.kernel_size[0] for conv in convs(block)] for stage in net.stages for block in stage
    ]
    assert sum(k == [3] for k in kernels) == sum(BLOCKS[depth]) - 3
    assert sum(k == [3, 1] for k in kernels) == 3  # where the shape changes
    assert len(convs(net)) == 1 + sum(BLOCKS[depth]) + 3
    assert all(conv.bias is None for conv in convs(net))


@pytest.mark.parametrize('depth', [50, 101])
def test_depth_50_and_101_have_a_shortcut_around_three_convolutions(depth):
    net = HoyerResNet(depth, base_channels=4)
    assert tuple(len(stage) for stage in net.stages) == BLOCKS[depth]
    for stage in net.stages:
        kernels = [[conv.kernel_size[0] for conv in convs(block)] for block in stage]
        assert kernels == [[1, 3, 1, 1]] + [[1, 3, 1]] * (len(stage) - 1)
    assert len(convs(net)) == 1 + 3 * sum(BLOCKS[depth]) + 4
    assert all(conv.bias is None for conv in convs(net))


def test_full_width_has_the_convolutions_of_resnet_50():
    with torch.device('meta'):
        net = HoyerResNet(50)
        reference = MODELS.build(dict(type='ResNet', depth=50))
    assert net.out_channels == (256, 512, 1024, 2048) and net.out_strides == (4, 8, 16, 32)
    shapes = [tuple(conv.weight.shape) for conv in convs(net)]
    assert shapes == [tuple(conv.weight.shape) for conv in convs(reference)]


@pytest.mark.parametrize(('style', 'strides'), [('pytorch', (1, 2, 1)), ('caffe', (2, 1, 1))])
def test_style_places_the_stride_as_mmdetection_does(style, strides):
    net = HoyerResNet(50, base_channels=4, style=style)
    reference = MODELS.build(dict(type='ResNet', depth=50, base_channels=4, style=style))
    for stage, name in zip(net.stages[1:], reference.res_layers[1:], strict=True):
        for block, other in zip(stage, getattr(reference, name), strict=True):
            found = tuple(conv.stride[0] for conv in (block.conv1, block.conv2, block.conv3))
            assert found == tuple(c.stride[0] for c in (other.conv1, other.conv2, other.conv3))
        first = stage[0]
        assert (first.conv1.stride[0], first.conv2.stride[0], first.conv3.stride[0]) == strides


def test_a_block_of_depth_18_without_its_branch_is_its_shortcut():
    net = prepared()
    for index, stage in enumerate(net.stages):
        for number, block in enumerate(stage):
            x = torch.randn(2, block.conv.in_channels, 9, 9)
            assert not torch.equal(block(x), block.shortcut(x))
            nn.init.zeros_(block.norm.weight)
            assert torch.equal(block(x), block.shortcut(x))
            same_shape = index == 0 or number > 0
            assert torch.equal(block(x), x) if same_shape else block(x).shape[2:] == (5, 5)


def test_basic_block_by_hand():
    block = prepared(bias_spread=0.5).double().stages[1][0]
    torch.manual_seed(1)
    x = torch.randn(3, 4, 7, 8, dtype=torch.float64)
    branch = normed(F.conv2d(by_hand(x, block.act), block.conv.weight, None, 2, 1), block.norm)
    # Max pooling over the windows there are, the last one cut off at the odd side.
    padded = F.pad(x, (0, 0, 0, 1), value=-torch.inf).unfold(2, 2, 2).unfold(3, 2, 2)
    pooled = normed(padded.amax((-1, -2)), block.shortcut.norm)
    shortcut = F.conv2d(by_hand(pooled, block.shortcut.act), block.shortcut.conv.weight)
    torch.testing.assert_close(block(x), branch + shortcut)


@pytest.mark.parametrize(('style', 'strides'), [('pytorch', (1, 2)), ('caffe', (2, 1))])
def test_bottleneck_by_hand(style, strides):
    net = prepared(50, style=style, dilations=(1, 2, 1, 1), bias_spread=0.5)
    block = net.double().stages[1][0]
    torch.manual_seed(1)
    x = torch.randn(3, 16, 7, 8, dtype=torch.float64)
    u = by_hand(normed(x, block.norm1), block.act1)
    u = F.conv2d(u, block.conv1.weight, None, strides[0])
    u = by_hand(normed(u, block.norm2), block.act2)
    u = F.conv2d(u, block.conv2.weight, None, strides[1], padding=2, dilation=2)
    u = by_hand(normed(u, block.norm3), block.act3)
    branch = F.conv2d(u, block.conv3.weight)
    padded = F.pad(x, (0, 0, 0, 1), value=-torch.inf).unfold(2, 2, 2).unfold(3, 2, 2)
    pooled = normed(padded.amax((-1, -2)), block.shortcut.norm)
    shortcut = F.conv2d(by_hand(pooled, block.shortcut.act), block.shortcut.conv.weight)
    torch.testing.assert_close(block(x), branch + shortcut)
    x = torch.randn(3, 32, 5, 5, dtype=torch.float64)
    second = net.stages[1][1]
    nn.init.zeros_(second.conv3.weight)
    assert torch.equal(second(x), x)


def test_stem_by_hand():
    stem = prepared(bias_spread=0.5).stem
    x = torch.randn(2, 3, 33, 40)
    u = F.conv2d(x, stem.conv.weight, None, stride=2, padding=3)
    assert stem.conv.weight.shape == (4, 3, 7, 7)
    u = normed(F.max_pool2d(u, 3, 2, 1), stem.norm)
    torch.testing.assert_close(stem(x), u)


def test_deep_stem_by_hand():
    stem = prepared(deep_stem=True, stem_channels=8, bias_spread=0.5).double().stem
    x = torch.randn(2, 3, 33, 40, dtype=torch.float64)
    shapes = [tuple(conv.weight.shape) for conv in convs(stem)]
    assert shapes == [(4, 3, 3, 3), (4, 4, 3, 3), (8, 4, 3, 3)]
    u = F.conv2d(x, stem.conv1.weight, None, stride=2, padding=1)
    u = F.conv2d(by_hand(normed(u, stem.norm1), stem.act1), stem.conv2.weight, padding=1)
    u = F.conv2d(by_hand(normed(u, stem.norm2), stem.act2), stem.conv3.weight, padding=1)
    torch.testing.assert_close(stem(x), normed(F.max_pool2d(u, 3, 2, 1), stem.norm))


def values(seen: dict[str, set[float]], name: str) -> Callable[[nn.Module, tuple], None]:
    """A hook that notes (at most four of) the values that a module reads."""

    def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
        seen.setdefault(name, set()).update(inputs[0].unique()[:4].tolist())

    return hook


@pytest.mark.parametrize('deep_stem', [False, True])
@pytest.mark.parametrize('output', ['spikes', 'potential'])
@pytest.mark.parametrize('depth', [18, 50])
def test_convolutions_read_spikes_of_a_real_valued_stream(depth, output, deep_stem):
    net = prepared(depth, base_channels=8, output=output, deep_stem=deep_stem)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # evaluation takes over the statistics of these images
    images = torch.randn(4, 3, 64, 64)
    stem = 'stem.conv1' if deep_stem else 'stem.conv'
    for training in (True, False):
        read, stream, handles = {}, {}, []
        for name, module in net.train(training).named_modules():
            if isinstance(module, nn.Conv2d) and name != stem:
                handles.append(module.register_forward_pre_hook(values(read, name)))
            elif name.startswith('stages.') and name.count('.') == 2:
                handles.append(module.register_forward_pre_hook(values(stream, name)))
        with torch.no_grad():
            outs = net(images)
        for handle in handles:
            handle.remove()
        assert len(read) == len(convs(net)) - 1 and len(stream) == sum(BLOCKS[depth])
        for name, found in read.items():
            assert found == {0, 1}, f'{name} reads {found}'
        assert all(len(found) == 4 for found in stream.values())
        for out in outs:
            assert (out.unique().tolist() == [0, 1]) == (output == 'spikes')


def test_outputs_are_the_spikes_of_the_potential():
    for depth in (18, 50):
        spiking, potential = prepared(depth).double(), prepared(depth, output='potential').double()
        left, unexpected = potential.load_state_dict(spiking.state_dict(), strict=False)
        assert not left and all(name.startswith('outputs.') for name in unexpected)
        images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        pairs = zip(spiking(images), potential(images), spiking.outputs, strict=True)
        for spikes, stream, layers in pairs:
            # A sum of normalised branches needs no further norm, a sum of convolutions does.
            assert hasattr(layers, 'norm') == (depth == 50)
            if depth == 50:
                stream = normed(stream, layers.norm)
            assert torch.equal(spikes, by_hand(stream, layers.act))


def test_relu_twin_has_the_same_weights_but_no_thresholds():
    for depth, neurons in ((18, 16 + 3 + 4), (50, 3 * 16 + 4 + 4)):
        spiking = prepared(depth)
        twin = prepared(depth, act_cfg=dict(type='ReLU', inplace=True))
        names = {n: p.shape for n, p in spiking.named_parameters() if not n.endswith('.threshold')}
        assert names == {n: p.shape for n, p in twin.named_parameters()}
        assert len(spiking_layers(spiking)) == neurons and not spiking_layers(twin)
        train_once(twin)  # an activation in place would spoil the stream that the shortcut reads
        out = twin(torch.randn(2, 3, 64, 64))[0]
        assert out.unique().numel() > 2 and out.min() == 0


@pytest.mark.parametrize('options', [dict(), dict(deep_stem=True, stem_channels=6)])
@pytest.mark.parametrize('depth', [18, 50])
def test_every_neuron_knows_its_channels(depth, options):
    net = prepared(depth, act_cfg=dict(type='HoyerSpike', extremum='channel'), **options)
    known = {name: layer.running_extremum.numel() for name, layer in spiking_layers(net).items()}
    seen = {}
    for name, layer in spiking_layers(net).items():
        layer.register_forward_pre_hook(lambda m, i, n=name: seen.update({n: i[0].size(1)}))
    net(torch.randn(2, 3, 48, 48))
    assert known == seen


@pytest.mark.parametrize('output', ['spikes', 'potential'])
@pytest.mark.parametrize('depth', [18, 34, 50, 101])
def test_gradients_reach_every_parameter_and_are_finite(depth, output):
    net = prepared(depth, base_channels=8, output=output)
    train_once(net, size=64)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 4])
@pytest.mark.parametrize(('depth', 'deep_stem'), [(18, False), (18, True), (50, False)])
def test_frozen_stages_do_not_move(depth, deep_stem, frozen_stages):
    options = dict(deep_stem=deep_stem, out_indices=(1, 3), bias_spread=0.5)
    net = prepared(depth, **options)
    train_once(net)  # so that the frozen neurons have an average to fire at
    state = copy.deepcopy(net.state_dict())
    net = prepared(depth, frozen_stages=frozen_stages, **options)
    net.load_state_dict(state)
    net.eval()
    net.train()

    def frozen(name: str) -> bool:
        part, number = name.split('.')[:2]
        if part == 'stem':
            return frozen_stages >= 0
        stage = int(number) if part == 'stages' else net.out_indices[int(number)]
        return stage < frozen_stages

    assert any(map(frozen, state)) == (frozen_stages >= 0)
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad != frozen(name), name
    for name, layer in spiking_layers(net).items():
        assert layer.training != frozen(name), name
    if frozen_stages == 4:
        assert all(map(frozen, state))
        net(torch.randn(2, 3, 48, 48))
    else:
        # The optimizer is given all weights, as MMEngine gives them.
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
        train_once(net, seed=1)
        optimizer.step()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, state[name]) == frozen(name), name


def test_frozen_neurons_are_left_out_of_the_regularizer():
    net = prepared(frozen_stages=2)
    trained = [name for name, layer in spiking_layers(net).items() if layer.training]
    with record_hoyer_squares(net) as squares:
        net(torch.randn(2, 3, 48, 48))
    assert len(squares) == len(trained) == 4 + 4 + 2 + 2


@pytest.mark.parametrize('depth', [18, 50])
def test_norm_eval_keeps_norms_but_not_neurons(depth):
    net = prepared(depth, norm_eval=True).train()
    state = copy.deepcopy(net.state_dict())
    train_once(net)
    moved = {n for n, tensor in net.state_dict().items() if not torch.equal(tensor, state[n])}
    neurons = {f'{name}.running_weight' for name in spiking_layers(net)}
    assert moved == neurons | {name.replace('weight', 'extremum') for name in neurons}
    net.eval()
    assert not any(module.training for module in net.modules())


@pytest.mark.parametrize(
    ('depth', 'options'),
    [
        (18, dict()),
        (18, dict(norm_eval=True)),
        (18, dict(act_cfg=dict(type='HoyerSpike', extremum='channel'))),
        (50, dict(frozen_stages=1)),
        (50, dict(deep_stem=True, norm_cfg=dict(type='SyncBN'))),
        (18, dict(norm_cfg=dict(type='BN', momentum=None))),
    ],
    ids=['plain', 'norm_eval', 'channel', 'frozen', 'syncbn', 'mean_of_all'],
)
def test_checkpointing_changes_nothing(depth, options):
    trained = prepared(depth, **{**options, 'frozen_stages': -1})
    train_once(trained)
    plain, checkpointed = prepared(depth, **options), prepared(depth, with_cp=True, **options)
    for net in (plain, checkpointed):
        net.load_state_dict(trained.state_dict())
    for seed in (0, 1):
        loss, loss_cp = (train_once(net.train(), seed) for net in (plain, checkpointed))
        assert torch.equal(loss, loss_cp)
    for (name, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None) == (not a.requires_grad), name
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, msg=name)
    # Norms and neurons count each batch once, although their block runs twice.
    for (name, a), b in zip(plain.named_buffers(), checkpointed.named_buffers(), strict=True):
        assert torch.equal(a, b[1]) and name == b[0], name


def test_checkpointing_keeps_no_activation_inside_a_block():
    def saved(with_cp: bool) -> int:
        net, total = prepared(50, with_cp=with_cp), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: total.append(t.numel()) or t, lambda t: t
        ):
            net(torch.randn(2, 3, 64, 64))
        return sum(total)

    assert saved(True) < 0.6 * saved(False)


def test_default_initialisation():
    net = prepared(18, base_channels=32)
    for conv in (conv for conv in convs(net) if conv.kernel_size == (3, 3)):
        # Kaiming's normal over the outgoing connections, with the gain of a ReLU
        expected = (2 / (conv.out_channels * 9)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.05)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.weight.eq(1).all() and norm.bias.eq(0).all()
    assert all(layer.threshold == 1 for layer in spiking_layers(net).values())


@pytest.mark.parametrize('depth', [18, 50])
def test_spread_biases_reach_spiking_norms_alone_and_survive_initialisation(depth):
    spiking = prepared(depth, base_channels=16, bias_spread=0.5)
    norms = [m for m in spiking.modules() if isinstance(m, nn.BatchNorm2d)]
    biases = torch.cat([norm.bias for norm in norms])
    # Uniform in [-0.5, 0.5]: standard deviation 1 / sqrt(12).
    assert all(norm.bias.ne(0).any() for norm in norms) and biases.abs().max() <= 0.5
    assert biases.std().item() == pytest.approx(12**-0.5, rel=0.1)
    twin = prepared(depth, bias_spread=0.5, act_cfg=dict(type='ReLU'))
    assert all(m.bias.eq(0).all() for m in twin.modules() if isinstance(m, nn.BatchNorm2d))


def test_pretrained_initialisation_takes_the_backbone_out_of_a_detector(tmp_path):
    source = prepared(50, bias_spread=1.0)
    train_once(source)
    weights = {f'backbone.{name}': tensor for name, tensor in source.state_dict().items()}
    weights['bbox_head.conv.weight'] = torch.ones(1)
    file = tmp_path / 'detector.pth'
    torch.save(dict(state_dict=weights), file)
    init_cfg = dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
    net = HoyerResNet(50, base_channels=4, bias_spread=1.0, init_cfg=init_cfg)
    expected = source.state_dict()
    assert not torch.equal(net.stem.conv.weight, expected['stem.conv.weight'])
    net.init_weights()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize('copied_by', ['state_dict', 'deepcopy'])
@pytest.mark.parametrize('depth', [18, 50])
def test_a_copy_evaluates_to_the_same_spikes(depth, copied_by):
    act_cfg = dict(type='HoyerSpike', extremum='channel')
    source = prepared(depth, act_cfg=act_cfg)
    for seed in range(3):
        train_once(source, seed)
    if copied_by == 'deepcopy':
        copied = copy.deepcopy(source)
    else:
        copied = HoyerResNet(depth, base_channels=4, act_cfg=act_cfg)
        copied.load_state_dict(source.state_dict())
    images = torch.randn(2, 3, 48, 48)
    outs = source.eval()(images)
    assert outs[0].any()
    for a, b in zip(outs, copied.eval()(images), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('out_indices', [(0,), (0, 2), (3,)])
def test_every_weight_of_a_short_network_gets_a_gradient(depth, out_indices):
    # DistributedDataParallel stops at a weight without one.
    net = prepared(depth, out_indices=out_indices)
    assert len(net.stages) == out_indices[-1] + 1 and len(net.outputs) == len(out_indices)
    sum(out.sum() for out in net(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize('depth', [18, 50])
def test_takes_the_arguments_of_a_caffe_config(depth):
    net = MODELS.build(
        dict(
            type='HoyerResNet',
            depth=depth,
            base_channels=4,
            num_stages=4,
            out_indices=(0, 1, 2, 3),
            frozen_stages=1,
            norm_cfg=dict(type='BN', requires_grad=False),
            norm_eval=True,
            style='caffe',
            init_cfg=None,
        )
    )
    net.init_weights()
    net.train()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training or m.weight.requires_grad for m in norms)
    train_once(net, size=64)
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize('norm', [dict(type='BN'), dict(type='GN', num_groups=2)])
@pytest.mark.parametrize('depth', [18, 50])
def test_trains_on_a_single_tiny_image(depth, norm):
    net = prepared(depth, norm_cfg=norm, bias_spread=0.5)
    outs = net(torch.randn(1, 3, 33, 33))
    assert [out.shape[-1] for out in outs] == [9, 5, 3, 2]
    sum(out.sum() for out in outs).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('depth', [18, 50])
def test_trains_in_bfloat16(depth, with_cp):
    net = prepared(depth, base_channels=8, with_cp=with_cp)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outs = net(torch.randn(2, 3, 64, 64))
        loss = sum((out * torch.randn_like(out)).sum() for out in outs)
    loss.backward()
    assert all(set(out.unique().tolist()) == {0, 1} for out in outs)
    for name, parameter in net.named_parameters():
        assert parameter.grad.dtype == torch.float32, name
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


@pytest.mark.parametrize('depth', [18, 50])
def test_channels_last_changes_no_spike(depth):
    net = prepared(depth).double()
    images = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    expected = net(images)
    net.to(memory_format=torch.channels_last)
    for a, b in zip(expected, net(images.to(memory_format=torch.channels_last)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(depth=152), r'depth must be one of \(18, 34, 50, 101\), got 152'),
        (dict(depth='50'), "depth .* got '50'"),
        (
            dict(style='tensorflow'),
            r"style must be one of \('pytorch', 'caffe'\), got 'tensorflow'",
        ),
        (dict(output='spike'), "output must be one of .* got 'spike'"),
        (dict(num_stages=0), 'num_stages .* got 0'),
        (dict(num_stages=5), 'num_stages .* got 5'),
        (dict(frozen_stages=5), r'frozen_stages must be one of \(-1, 0, 1, 2, 3, 4\), got 5'),
        (dict(frozen_stages=-2), 'frozen_stages .* got -2'),
        (dict(num_stages=3, out_indices=(0,), frozen_stages=4), 'frozen_stages .* got 4'),
        (dict(strides=(1, 2, 2)), r'strides \(1, 2, 2\) and dilations .* each of the 4 stages'),
        (dict(dilations=(1,)), r'dilations \(1,\) must have an entry for each of the 4 stages'),
        (dict(strides=(1, 2, 2, 0)), r'strides \(1, 2, 2, 0\).* must be at least 1'),
        (dict(dilations=(1, 1, 0, 1)), r'dilations \(1, 1, 0, 1\).* must be at least 1'),
        (dict(base_channels=0), 'base_channels=0 must be at least 1'),
        (dict(stem_channels=0), 'stem needs at least 1 channels, got 0'),
        (dict(stem_channels=1, deep_stem=True), 'stem needs at least 2 channels, got 1'),
        (dict(norm_cfg=None), 'norm_cfg must name a norm'),
        (dict(out_indices=()), r'out_indices .* got \(\)'),
        (dict(out_indices=(3, 1)), r'out_indices .* got \(3, 1\)'),
        (dict(out_indices=(1, 1)), r'out_indices .* got \(1, 1\)'),
        (dict(out_indices=(-1,)), r'out_indices .* got \(-1,\)'),
        (dict(out_indices=(4,)), r'out_indices .* from 0 to 3, got \(4,\)'),
        (dict(num_stages=3, out_indices=(3,)), r'out_indices .* from 0 to 2, got \(3,\)'),
    ],
)
def test_wrong_arguments_are_named_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=f'HoyerResNet: .*{message}') as error:
        HoyerResNet(**{'depth': 18, 'base_channels': 4, **arguments})
    assert '\n' not in str(error.value)
