"""The passes over a layer's tensors on CPU as compiled C; functions as in ``chunked``.

``passes.c`` is compiled once for a machine, when a neuron first needs it, by the C compiler of the
system (``$CC`` or ``cc``). It knows nothing of Python or PyTorch, so a compiler is all it takes; where
there is none, :mod:`hoyer_det.spiking.chunked` does the same in more passes.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .chunked import Affine, Sums

_SOURCE = Path(__file__).with_name('passes.c')
# Sums may be reordered into vectors; NaN and inf keep their meaning.
_FLAGS = [
    '-O3',
    '-march=native',
    '-fPIC',
    '-shared',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-fno-signed-zeros',
    '-fassociative-math',
]
# Entries below which a second thread costs more than it saves.
_SHARE = 1 << 16


class _Range(ctypes.Structure):
    _fields_ = [(name, ctypes.c_longlong) for name in ('a0', 'a1', 'c0', 'c1', 'C', 'B')]


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled passes, None where they cannot be compiled or ``HOYER_DET_COMPILE=0``."""
    compiler = shutil.which(os.environ.get('CC') or 'cc')
    if compiler is None or os.environ.get('HOYER_DET_COMPILE') == '0':
        return None
    try:
        # For this source on this kind of processor; a folder of one's own, as code is loaded from it.
        key = hashlib.sha256(_SOURCE.read_bytes() + _processor().encode()).hexdigest()[:16]
        root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        folder = Path(root) / 'hoyer_det'
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = folder / f'passes-{key}.so'
        if not file.exists():
            with tempfile.TemporaryDirectory(dir=folder) as place:
                made = Path(place) / file.name
                command = [compiler, *_FLAGS, str(_SOURCE), '-o', str(made), '-lm']
                subprocess.run(command, check=True, capture_output=True, timeout=60)
                made.replace(file)  # at once, as other processes may do the same
        return ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError, RuntimeError):
        return None


def _processor() -> str:
    """Describe what ``-march=native`` depends on."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        flags = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
    except OSError:
        flags = platform.processor()
    return f'{platform.platform()} {flags} {" ".join(_FLAGS)}'


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix='hoyer_det')


# Threads do not survive a fork.
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _run(name: str, x: Tensor, number: int, *arguments: Tensor | float) -> Tensor | None:
    """Call a function of the library on shares of ``x`` (A, C, B), each in its own thread.

    Args:
        name: Name of the function.
        x: Tensor that is shared out, by channels or, where B is 1, by places.
        number: Number of sums that it returns for each channel, 0 for none.
        *arguments: Its arguments before the sums.

    Returns:
        Sums of the shares, (shares, number, C) in float64.
    """
    outer, channels, inner = x.shape
    function = getattr(library(), name)
    length = outer if inner == 1 else channels
    shares = max(1, min(torch.get_num_threads(), length, x.numel() // _SHARE))
    sums = torch.zeros(shares, number, channels, dtype=torch.float64) if number else None
    given = [
        ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_float(a)
        for a in arguments
    ]

    def call(share: int) -> None:
        start, stop = length * share // shares, length * (share + 1) // shares
        along = (start, stop, 0, channels) if inner == 1 else (0, outer, start, stop)
        where = ctypes.byref(_Range(*along, channels, inner))
        own = [] if sums is None else [ctypes.c_void_p(sums[share].data_ptr())]
        function(*given, *own, where)  # ctypes lets other threads run meanwhile

    if shares == 1:
        call(0)
    else:
        rest = [_pool(shares - 1).submit(call, share) for share in range(1, shares)]
        call(0)
        for future in rest:
            future.result()
    return sums


def _coefficients(x: Tensor, norm: Affine | None) -> tuple[Tensor, Tensor]:
    """Return ``alpha`` and ``beta`` of ``u = x * alpha + beta``, as batch norm computes them."""
    if norm is None:
        return x.new_ones(x.size(1)), x.new_zeros(x.size(1))
    alpha = norm.weight / torch.sqrt(norm.var + norm.eps)
    return alpha, norm.bias - norm.mean * alpha


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and (biased) variance of each channel of ``x`` (A, C, B)."""
    means, squares, counts = _run('moments', x, 3, x).unbind(1)
    total = x.size(0) * x.size(2)
    mean = (means * counts).sum(0) / total
    squares = squares.sum(0) + (counts * (means - mean).square()).sum(0)
    return mean.float(), (squares / total).float()


def clipped_sums(
    x: Tensor, norm: Affine | None, clip: Tensor, per_channel: bool, exclude: bool
) -> Sums:
    """Sum as :func:`hoyer_det.spiking.chunked.clipped_sums`."""
    sums = _run('clipped_sums', x, 5, x, *_coefficients(x, norm), clip.item()).sum(0)
    finite = (sums[4].sum() == 0) & torch.isfinite(sums[0].sum())
    if not per_channel:
        sums = sums.sum(1)
    sums = sums.float()
    return Sums(sums[0], sums[1], *((sums[2], sums[3]) if exclude else (sums[0], sums[1])), finite)


def fire(x: Tensor, norm: Affine | None, level: Tensor, spikes: Tensor) -> None:
    """Fire as :func:`hoyer_det.spiking.chunked.fire`."""
    level = level.float().expand(x.size(1)).contiguous()
    _run('fire', x, 0, x, *_coefficients(x, norm), level, spikes)


def gradient(
    grad_spikes: Tensor | None,
    x: Tensor,
    norm: Affine | None,
    clip: Tensor,
    box: tuple[Tensor, Tensor],
    pull: tuple[Tensor, Tensor] | None,
    grad: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute gradients as :func:`hoyer_det.spiking.chunked.gradient`."""
    none = torch.zeros(())
    window, height = box if grad_spikes is not None else (none - 1, none)
    constants = torch.stack([window, height, clip, *(pull or (none, none))]).float()
    alpha, beta = _coefficients(x, norm)
    mean = torch.zeros_like(alpha) if norm is None else norm.mean
    given = x if grad_spikes is None else grad_spikes
    sums = _run('gradient', x, 2, given, x, alpha, beta, mean, constants, grad).sum(0)
    if norm is None:
        return sums[1].sum().float(), None, None
    inverse = torch.rsqrt(norm.var.double() + norm.eps)
    grad_bias, grad_weight = sums[0], sums[1] * inverse
    product = torch.dot(grad_weight, norm.weight.double())
    product += torch.dot(grad_bias, norm.bias.double())
    total = x.size(0) * x.size(2)
    slope = (-alpha * inverse * grad_weight / total).float()
    offset = (-alpha * grad_bias / total).float()
    _run('norm_gradient', x, 0, x, mean, alpha, slope, offset, grad)
    return product.float(), grad_weight.float(), grad_bias.float()
