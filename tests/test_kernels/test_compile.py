"""Spiking networks under torch.compile, against PyTorch's operations without it."""

import copy
from unittest import mock

import pytest
import torch
from conftest import CONFIGS
from hoyer_det.backbones import HoyerResNet, HoyerVGG, resnet
from hoyer_det.backbones.blocks import SpikingConvBlock
from hoyer_det.config import load_config
from hoyer_det.kernels import LeanMaxPool2d, set_kernels
from hoyer_det.spiking import record_hoyer_squares
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from narrow import narrow_model, random_items
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader


@pytest.fixture(autouse=True)
def forget_what_was_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def step(net, forward, x):
    """Return loss, gradients and buffers of a training step with the Hoyer term."""
    with record_hoyer_squares(net) as squares:
        outs = forward(x)
    outs = outs if isinstance(outs, tuple) else (outs,)
    loss = sum((out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum() for out in outs)
    loss = loss + 1e-3 * sum(squares)
    loss.backward()
    state = {key: p.grad for key, p in net.named_parameters()} | dict(net.named_buffers())
    return {'loss': loss.detach(), **state}


def assert_same(compiled, plain):
    assert compiled.keys() == plain.keys()
    for key, value in plain.items():
        scale = value.abs().max().item() if value.numel() else 0.0
        torch.testing.assert_close(
            compiled[key], value, rtol=1e-3, atol=1e-3 * scale, msg=lambda m, key=key: f'{key}: {m}'
        )


def short_vgg():
    return HoyerVGG(11, 0.1, out_indices=(0, 2), bias_spread=1.0)


def short_resnet():
    settings = dict(base_channels=4, num_stages=2, out_indices=(0, 1), bias_spread=1.0)
    with mock.patch.dict(resnet._ARCHITECTURES, {18: (resnet.SpikingBasicBlock, (1, 1))}):
        return HoyerResNet(18, **settings)


@pytest.mark.parametrize('backbone', [short_vgg, short_resnet])
def test_whole_backbone_is_one_graph_with_the_same_gradients(backbone):
    torch.manual_seed(0)
    net = backbone()
    net, x = net.train(), torch.randn(2, 3, 32, 32)
    twin = copy.deepcopy(net)
    set_kernels(twin, 'plain')
    plain = step(twin, twin, x)
    assert_same(step(net, torch.compile(net, backend='aot_eager', fullgraph=True), x), plain)


def test_image_sizes_share_two_compilations():
    """One for the first size, one for all others; as for pictures padded to multiples of 32."""
    net = nn.Sequential(
        SpikingConvBlock(3, 4, 3, padding=1, pool=LeanMaxPool2d(2)),
        SpikingConvBlock(4, 4, 3, padding=1, act_cfg=dict(type='HoyerSpike', extremum='channel')),
    ).train()
    counter = CompileCounterWithBackend('aot_eager')
    forward = torch.compile(net, backend=counter)
    for size in ((32, 32), (64, 96), (96, 64), (128, 32), (160, 192)):
        forward(torch.randn(2, 3, *size)).mean().backward()
    assert counter.frame_count == 2


def test_a_norm_handed_over_by_ordinary_code_is_applied_by_traced_code():
    """As happens where torch.compile gives up on a caller and traces what it calls."""
    torch.manual_seed(0)
    block, x = SpikingConvBlock(3, 6, 1, bias_spread=1.0).train(), torch.randn(2, 3, 8, 8)
    twin = copy.deepcopy(block)
    potential = block.conv(x)
    assert torch.equal(
        torch.compile(block.act, backend='eager')(potential, block.norm),
        twin.act(twin.norm(potential)),
    )


def test_compiled_code_between_eager_code():
    torch.manual_seed(0)
    net = nn.Sequential(*[SpikingConvBlock(4, 4, 3, padding=1, bias_spread=1.0) for _ in range(3)])
    net, x = net.train(), torch.randn(2, 4, 16, 16)
    twin = copy.deepcopy(net)
    set_kernels(twin, 'plain')
    plain = step(twin, twin, x)
    middle = torch.compile(net[1], backend='aot_eager')
    assert_same(step(net, lambda x: net[2](middle(net[0](x))), x), plain)


@pytest.mark.slow
def test_compile_option_of_the_runner(tmp_path):
    """MMEngine compiles the forward call of the whole detector; the hook adds its term around it."""
    model, side = narrow_model(load_config(CONFIGS / 'hoyer_ssd_shapes.py'))
    losses = []
    for options in ({}, dict(compile=dict(backend='eager'))):
        runner = Runner(
            model=copy.deepcopy(model),
            work_dir=str(tmp_path),
            train_dataloader=DataLoader(
                random_items(4, side), batch_size=2, collate_fn=pseudo_collate
            ),
            train_cfg=dict(by_epoch=False, max_iters=2),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
            custom_hooks=[dict(type='HoyerRegularizerHook', weight=1e-4)],
            default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=1)),
            default_scope='mmdet',
            log_level='ERROR',
            experiment_name=f'compile-{len(losses)}',
            cfg=options,
        )
        counters.clear()
        runner.train()
        assert (counters['frames']['ok'] > 0) == bool(options)
        losses.append(runner.message_hub.get_scalar('train/loss').data[0])
        assert runner.message_hub.get_scalar('train/loss_hoyer').current() > 0
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
