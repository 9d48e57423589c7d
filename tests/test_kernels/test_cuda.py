"""The Triton kernels against float64 and the C kernels, and whether they compile for a GPU.

Without a GPU Triton's interpreter runs them. It decides at import whether it interprets, so everything
here runs in processes of its own.
"""

import copy
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

DTYPES = torch.float32, torch.float16, torch.bfloat16
WINDOW, HEIGHT = 1.7, 0.4


def run(what: str, **env: str) -> str:
    """Run this file as a program; return the last line that it prints."""
    pytest.importorskip('triton')
    process = subprocess.run(
        [sys.executable, __file__, what],
        env={**os.environ, 'OMP_NUM_THREADS': '1', **env},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout.splitlines()[-1]


@pytest.mark.slow
def test_kernels_by_the_interpreter():
    assert run('cpu', TRITON_INTERPRET='1') == 'all agree'


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_kernels_on_the_gpu():
    assert run('cuda') == 'all agree'


@pytest.mark.slow
@pytest.mark.parametrize('capability', ['80', '90'])
def test_kernels_compile(capability, tmp_path):
    assert run(capability, TRITON_CACHE_DIR=str(tmp_path)) == 'all agree'


def inputs(shape, with_norm, extremum, saturated, dtype=torch.float32, last=False, device='cpu'):
    """Return the input, a norm or None, and a neuron."""
    from hoyer_det.kernels import FastHoyerSpike

    torch.manual_seed(0)
    channels = shape[1]
    x = torch.randn(shape) * 1.5 + torch.randn(channels).view(-1, *[1] * (len(shape) - 2))
    x = x.to(device, dtype)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    norm = None
    if with_norm:
        norm = nn.BatchNorm2d(channels, momentum=0.3).to(device)
        with torch.no_grad():
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.copy_(torch.rand(channels) + 0.3)
    settings = dict(extremum=extremum, saturated=saturated, threshold=-0.8, extremum_scale=0.9)
    surrogate = dict(surrogate_window=WINDOW, surrogate_height=HEIGHT)
    return x, norm, FastHoyerSpike(channels, **settings, **surrogate).to(device)


def settings_of(layer, norm):
    from hoyer_det.kernels.neuron import Settings

    exclude = layer.saturated == 'exclude' and layer.extremum != 'fixed'
    eps = 0.0 if norm is None else norm.eps
    return Settings(layer.extremum, exclude, layer.extremum_scale, WINDOW, HEIGHT, eps)


def step(kernels, x, norm, layer, grad_spikes, grad_square):
    """Run forward and backward pass; return all results by name."""
    settings = settings_of(layer, norm)
    with torch.no_grad():
        weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
        given = x, weight, bias, layer.threshold
        spikes, square, statistics, nonfinite = kernels.forward(*given, settings)
        grads = kernels.backward(grad_spikes, grad_square, *given, statistics, settings)
        extrema = layer.running_extremum.numel()
        mean, var, extremum, valid = kernels.statistics_of(statistics, extrema)
    out = dict(zip(('x', 'weight', 'bias', 'threshold'), grads, strict=True))
    out.update(spikes=spikes, square=square, nonfinite=nonfinite)
    out.update(extremum=extremum * valid, valid=valid)
    if norm is not None:
        out.update(mean=mean, var=var)
    return {name: value for name, value in out.items() if value is not None}


def reference(x, norm, layer, grad_spikes, grad_square):
    """Return the same by autograd in float64, from the definition; and how far levels are."""
    leaf, layer, norm = x.double().requires_grad_(), *copy.deepcopy((layer, norm))
    leaves, out, u = {'x': leaf}, {}, leaf
    if norm is not None:
        norm = norm.double()
        leaves.update(weight=norm.weight, bias=norm.bias)
        u = norm(leaf)
        u = u + (u.to(x.dtype).double() - u).detach()
        rows = x.double().transpose(0, 1).flatten(1)
        out.update(mean=rows.mean(1), var=rows.var(1))
    threshold = leaves['threshold'] = layer.threshold.detach().double().requires_grad_()
    z = u / threshold.abs()
    clipped = z.clamp(0, 1)
    square = clipped.sum() ** 2 / clipped.square().sum()

    counted = clipped.detach()
    if layer.saturated == 'exclude':
        counted = counted * (counted < 1)
    dims = [d for d in range(x.dim()) if d != 1 or layer.extremum != 'channel']
    total = counted.sum(dims, keepdim=True)
    valid = total > 0
    extremum = torch.where(valid, counted.square().sum(dims, keepdim=True) / total, 1.0)
    if layer.extremum == 'fixed':
        extremum = torch.ones_like(extremum)
    above = z.detach() - layer.extremum_scale * extremum

    loss = 0
    if grad_spikes is not None:
        loss = (grad_spikes * HEIGHT * z.clamp(0, WINDOW)).sum()
    if grad_square is not None:
        loss = loss + grad_square * square
    out.update(zip(leaves, torch.autograd.grad(loss, leaves.values()), strict=True))
    out.update(spikes=(above >= 0).double(), square=square.detach(), nonfinite=torch.zeros(()))
    out.update(extremum=valid.flatten() * extremum.flatten(), valid=valid.flatten())
    return out, above


def assert_close(values, expected, tolerance):
    assert values.keys() == expected.keys()
    for name, value in values.items():
        value, target = value.double().cpu(), expected[name].double().cpu()
        error, scale = (value - target.view_as(value)).norm(), target.norm()
        if name == 'threshold':  # a sum over gradients that may cancel
            scale = max(scale, expected['x'].double().norm().cpu())
        assert error <= tolerance * scale + 1e-12, (name, error, scale)


def check(x, norm, layer, grad_spikes, grad_square, tolerance=2e-5):
    """Compare one step with float64, and with the C kernels where they do this."""
    from hoyer_det.kernels import build, cpu, cuda

    arguments = x, norm, layer, grad_spikes, grad_square
    values = step(cuda, *arguments)
    assert values['spikes'].stride() == values['x'].stride() == x.stride()
    assert values['spikes'].dtype == values['x'].dtype == x.dtype
    expected, above = reference(*arguments)
    # A potential may lie at the level but for rounding.
    different = values['spikes'] != expected['spikes']
    assert not (different & (above.abs() > tolerance)).any()
    assert 0.05 < values['spikes'].float().mean() < 0.95
    expected['spikes'] = values['spikes']
    assert_close(values, expected, tolerance)
    if x.device.type == 'cpu' and x.dtype == torch.float32 and build.library() is not None:
        others = step(cpu, *arguments)
        assert (values['spikes'] != others['spikes']).float().mean() < 1e-4
        others['spikes'] = values['spikes']
        assert_close(values, others, tolerance)


def compare(device: str) -> None:
    """Compare on small tensors."""
    from hoyer_det.kernels import cuda

    modes = [*itertools.product(('layer', 'channel'), ('clip', 'exclude')), ('fixed', 'exclude')]
    # Each tile, entries alone or several at once; several tiles along each side.
    shapes = [(3, 5, 9, 11), (34, 3, 4, 4), (6, 3, 20, 21), (2, 2, 33, 65), (4, 3, 7), (40, 70)]
    cases = [(shape, False) for shape in shapes] + [((3, 70, 5, 3), True), ((2, 4, 6, 6), True)]
    which = itertools.cycle(modes)  # the interpreter is slow: two modes a case, all in turns
    for (shape, last), with_norm in itertools.product(cases, (False, True)):
        if with_norm and len(shape) != 4:
            continue
        chosen = modes if device == 'cuda' else itertools.islice(which, 2)
        for number, mode in enumerate(chosen):
            x, norm, layer = inputs(shape, with_norm, *mode, last=last, device=device)
            cuda._PROGRAMS = 4 if number % 2 else 2048
            check(x, norm, layer, torch.randn_like(x), x.new_tensor(0.3))
        check_evaluation(x, norm)

    shapes = [(3, 5, 5, 7), (5, 8, 4, 8)] if device == 'cuda' else [(3, 5, 5, 7)]
    for shape, dtype in itertools.product(shapes, DTYPES):
        for last, with_norm in itertools.product((False, True), (False, True)):
            if dtype == torch.bfloat16 and with_norm and device == 'cpu':
                continue  # the interpreter cuts digits off instead of rounding
            tolerance = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}[dtype]
            options = dict(dtype=dtype, last=last, device=device)
            x, norm, layer = inputs(shape, with_norm, 'layer', 'clip', **options)
            square = torch.tensor(50.0, device=device)
            check(x, norm, layer, torch.randn_like(x), square, tolerance)
            check(x, norm, layer, torch.randn_like(x), None, tolerance)
            check(x, norm, layer, None, square, tolerance)
            if dtype == DTYPES[0]:
                check_nonfinite(x, norm, layer)

    # Potentials near the level are multiples of 1/32 or 1/16, as a norm would hand them on.
    x, norm, layer = inputs((4, 5, 9, 11), True, 'fixed', 'clip', torch.float16, device=device)
    layer.extremum_scale = 0.5
    with torch.no_grad():
        for tensor, value in ((norm.weight, 0.1), (norm.bias, 64), (layer.threshold, 128)):
            tensor.fill_(value)
        spikes = step(cuda, x, norm, layer, x, None)['spikes']
        assert torch.equal(spikes, (norm.double()(x.double()).half() >= 64).half())

    # More channels than a program takes at a time.
    x, norm, layer = inputs((7, 600), False, 'channel', 'clip', device=device)
    check(x, norm, layer, torch.randn_like(x), x.new_tensor(0.3))
    # Nothing is positive.
    x = -x.abs()
    values = step(cuda, x, norm, layer, None, x.new_tensor(1.0))
    for name in ('spikes', 'square', 'x', 'threshold', 'extremum', 'valid'):
        assert not values[name].any(), name

    for dtype, count in itertools.product(DTYPES, (1, 7, 8, 4096, 5003)):
        flat = (torch.rand(count, device=device) < 0.4).to(dtype)
        bits = cuda.pack(flat)
        flags = F.pad(flat != 0, (0, -count % 8)).view(-1, 8)
        assert bits.dtype == torch.uint8 and bits.shape == ((count + 7) // 8,)
        expected = flags.int() @ (2 ** torch.arange(7, -1, -1, device=device)).int()
        assert torch.equal(bits.int(), expected)
        again = cuda.unpack(bits[count // 64 :], dtype)
        assert torch.equal(again, flags[count // 64 :].reshape(-1).to(dtype))


POOLINGS = [
    ((2, 2), (2, 2), (0, 0), True, (7, 5)),
    ((2, 2), (2, 2), (0, 0), False, (41, 30)),
    ((3, 3), (1, 1), (1, 1), False, (6, 5)),
    ((3, 3), (2, 2), (1, 1), False, (9, 7)),
    ((2, 3), (2, 1), (0, 1), False, (6, 4)),
    ((1, 2), (3, 2), (0, 1), True, (8, 9)),
]


def compare_pooling(device: str) -> None:
    """Compare with PyTorch's own pooling."""
    from hoyer_det.kernels import cuda_pooling

    for pooling, last, dtype in itertools.product(POOLINGS, (False, True), DTYPES):
        *window, ceil_mode, size = pooling
        layout = torch.channels_last if last else torch.contiguous_format
        # Whole numbers, so that maxima are often shared; of many, so that there are several tiles.
        x = torch.randint(-2, 3, (2, 5, *size)).to(device, dtype).contiguous(memory_format=layout)
        x[0, 0, -1, -1] = float('nan')
        x.requires_grad_()
        expected = F.max_pool2d(x, *window, ceil_mode=ceil_mode)
        grad = torch.randint(-4, 5, expected.shape).to(x)
        expected.backward(grad)
        with torch.no_grad():
            out, places = cuda_pooling.max_pool(x, *window, ceil_mode)
            back = cuda_pooling.max_pool_backward(
                grad, places, torch.empty_like(x), *window, ceil_mode
            )
        torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)
        assert out.stride() == expected.stride()
        assert torch.equal(back, x.grad)


def check_evaluation(x, norm):
    """Compare the spikes at given levels with float64."""
    from hoyer_det.kernels import cuda

    u = x.double() if norm is None else copy.deepcopy(norm).double().eval()(x.double())
    own = () if norm is None else (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    for level in (x.new_tensor([0.4]), torch.rand(x.size(1)).to(x)):
        with torch.no_grad():
            spikes = cuda.fire(x, level, own, 0.0 if norm is None else norm.eps)
        above = u - level.view(1, -1, *[1] * (x.dim() - 2))
        assert not ((spikes != (above >= 0)) & (above.abs() > 1e-5)).any()
        assert spikes.stride() == x.stride() and 0.05 < spikes.mean() < 0.95


def check_nonfinite(x, norm, layer):
    """See that a NaN or inf is reported, and that a NaN makes no extremum."""
    from hoyer_det.kernels import cuda

    layer = copy.deepcopy(layer)
    for bad, layer.saturated in itertools.product(('nan', 'inf', '-inf'), ('exclude', 'clip')):
        image = x.clone()
        image[-1, 1].view(-1)[-1] = float(bad)
        values = step(cuda, image, norm, layer, None, x.new_tensor(1.0))
        assert values['nonfinite'] == 1 and values['nonfinite'].shape == ()
        # Behind a norm all is NaN; without one an inf is clipped.
        moved = norm is None and bad != 'nan'
        assert values['extremum'].isfinite().all() and values['extremum'].any() == moved
    values = step(cuda, x, norm, layer, None, x.new_tensor(1.0))
    assert values['nonfinite'] == 0


def let_interpreter_loop() -> None:
    """Let loop bounds be arrays of one entry, which NumPy no longer turns into a number."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, '__index__', lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patched


def compile_all(capability: int) -> None:
    """Compile what forward and backward passes launch, as Triton would for a GPU."""
    from hoyer_det.kernels import cuda, cuda_pooling
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver, jit

    class Driver:
        get_current_device = get_current_stream = lambda *_: 0
        get_current_target = lambda _: GPUTarget('cuda', capability, 32)  # noqa: E731

    driver.set_active(Driver())
    original, kernels = jit.JITFunction.run, {}

    def compile_only(self, *args, grid, warmup, **kwargs):
        kernel = original(self, *args, grid=grid, warmup=True, **kwargs)
        kernels[kernel.hash] = kernel

    jit.JITFunction.run = compile_only

    def launch(shape, with_norm, extremum, saturated, dtype=torch.float32, last=False):
        x, norm, layer = inputs(shape, with_norm, extremum, saturated, dtype, last)
        step(cuda, x, norm, layer, x, torch.tensor(1.0))

    def pool(dtype, *size):
        for (*window, ceil_mode, _), layout in itertools.product(
            POOLINGS[1:3], (torch.contiguous_format, torch.channels_last)
        ):
            x = torch.zeros(2, 4, *size, dtype=dtype).contiguous(memory_format=layout)
            out, places = cuda_pooling.max_pool(x, *window, ceil_mode)
            cuda_pooling.max_pool_backward(out, places, x, *window, ceil_mode)

    layouts = [
        *(((2, 8, 64, 64), False), ((3, 8, 16, 32), False)),
        *(((32, 8, 5, 5), False), ((32, 8, 8, 8), False), ((2, 8, 5, 5), True)),
    ]
    for dtype in DTYPES[:2]:
        for (shape, last), with_norm in itertools.product(layouts, (False, True)):
            launch(shape, with_norm, 'layer', 'clip', dtype, last)
            if with_norm:  # what takes the most registers
                launch(shape, with_norm, 'channel', 'exclude', dtype, last)
        for count in (1024, 1001):
            cuda.unpack(cuda.pack(torch.zeros(count, dtype=dtype)), dtype)
    launch(layouts[0][0], True, 'fixed', 'clip')
    for dtype in DTYPES[:2]:
        pool(dtype, 16, 24)
    for kernel in kernels.values():
        assert kernel.asm['cubin']
    assert no_spills(kernel.asm['cubin'] for kernel in kernels.values())

    # Other sizes need no other kernels, nor do sizes of 1 or of a multiple of 16.
    before = set(kernels)
    others = [
        *(((1, 3, 64, 96), False), ((5, 16, 128, 128), False), ((2, 1, 50, 80), False)),
        *(((3, 1, 22, 23), False), ((6, 7, 25, 20), False), ((70, 2, 3, 3), False)),
        *(((33, 16, 4, 6), False), ((1, 16, 7, 9), True), ((16, 32, 1, 1), False)),
    ]
    for shape, last in others:
        launch(shape, True, 'layer', 'clip', last=last)
    for count in (16, 8, 8008, 1, 17):
        cuda.unpack(cuda.pack(torch.zeros(count)), torch.float32)
    for size in ((7, 5), (64, 1), (33, 32)):
        pool(torch.float32, *size)
    new = [kernels[key].name for key in set(kernels) - before]
    assert len(new) <= 5, new  # (512 wide, entries alone): one of each kernel


def no_spills(cubins) -> bool:
    """Tell whether no kernel keeps registers in memory."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        for cubin in cubins:
            Path(file.name).write_bytes(cubin)
            command = [knobs.nvidia.cuobjdump.path, '--dump-resource-usage', file.name]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            assert 'REG:' in text
            if 'STACK:0 ' not in text or 'LOCAL:0 ' not in text:
                return False
    return True


if __name__ == '__main__':
    (task,) = sys.argv[1:]
    if task.isdigit():
        compile_all(int(task))
    else:
        if os.environ.get('TRITON_INTERPRET') == '1':
            let_interpreter_loop()
        compare(task)
        compare_pooling(task)
    print('all agree')
