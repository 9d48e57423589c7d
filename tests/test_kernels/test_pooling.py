"""LeanMaxPool2d against PyTorch's own max pooling."""

import pytest
import torch
from hoyer_det.kernels import LeanMaxPool2d
from torch import nn

pytestmark = pytest.mark.usefixtures('needs_kernels')


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize(
    ('kernel', 'arguments', 'size'),
    [
        (2, dict(stride=2, ceil_mode=True), (7, 5)),
        (2, dict(stride=2), (7, 6)),
        (3, dict(stride=1, padding=1), (6, 5)),
        (3, dict(stride=2, padding=1), (9, 7)),
        ((2, 3), dict(stride=(2, 1), padding=(0, 1)), (6, 4)),
        (3, dict(stride=1, padding=1), (3, 2)),  # wider than the image
    ],
)
def test_outputs_and_gradients_are_those_of_pytorch(kernel, arguments, size, channels_last):
    torch.manual_seed(0)
    # Whole numbers, so that maxima are often shared.
    x = torch.randint(0, 4, (2, 3, *size)).float()
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    results = []
    for layer in (LeanMaxPool2d, nn.MaxPool2d):
        image = x.clone().requires_grad_()
        out = layer(kernel, **arguments)(image)
        (out * torch.arange(out.numel()).view(out.shape)).sum().backward()
        results.append((out.detach(), image.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()


def test_a_byte_is_kept_for_each_output():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel() * t.element_size()) or t, lambda t: t
    ):
        out = LeanMaxPool2d(2)(torch.rand(1, 3, 8, 8, requires_grad=True))
    assert sum(kept) == out.numel()


@pytest.mark.parametrize('arguments', [(2, 0), (2, 1, 2), (9,), (2, 2, -1)])
def test_what_pytorch_refuses_is_refused(arguments):
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    for layer in (nn.MaxPool2d, LeanMaxPool2d):
        with pytest.raises(RuntimeError):
            layer(*arguments)(x)
