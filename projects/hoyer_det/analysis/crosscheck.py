"""Counts one image a second time, with counters of other projects."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from mmengine.analysis.complexity_analysis import FlopAnalyzer
from torch import Tensor, nn

from ..kernels import plain_kernels
from .operations import OperationCounter


def mmengine_dense(model: nn.Module, inputs: Tensor) -> tuple[int, dict[str, int]]:
    """Count dense multiply-accumulates with MMEngine, which traces ``model(inputs)``.

    That is ``mode='tensor'`` of a detector: what a detector does beyond its forward pass (the second
    stage) is not in it.

    Args:
        model: Detector in evaluation mode.
        inputs: Preprocessed images (N, 3, H, W).

    Returns:
        Multiply-accumulates of convolutions and linear layers, and what MMEngine counts beside them by
        operator, such as two operations for each output of a batch norm.
    """
    with torch.no_grad(), plain_kernels(model):
        counter = FlopAnalyzer(model, inputs)
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counter.tracer_warnings('none')
        found = dict(counter.by_operator())
    products = ('conv', 'linear', 'addmm', 'mm', 'matmul', 'bmm')
    dense = sum(int(found.pop(name, 0)) for name in products)
    return dense, {name: int(count) for name, count in found.items() if count}


def spikingjelly_counters() -> ModuleType:
    """Return SpikingJelly's ``op_counter``.

    Raises:
        ValueError: If SpikingJelly 2.0 is not installed.
    """
    try:
        return importlib.import_module('spikingjelly.activation_based.op_counter')
    except ImportError as error:
        raise ValueError(
            f'--cross-check: SpikingJelly 2.0 is not installed ({error}); '
            "`pip install -e '.[analysis]'` brings it"
        ) from error


def spikingjelly_operations(model: nn.Module, batch: Any) -> tuple[int, int]:
    """Count synaptic operations and multiply-accumulates with SpikingJelly's ``op_counter``.

    Its counters look at each call by itself: a layer whose input happens to be 0 and 1 on one image
    only is counted as spike-driven on that image.

    Args:
        model: Detector in evaluation mode.
        batch: What its ``test_step`` takes.

    Returns:
        Additions of weights driven by spikes, and multiply-accumulates of all other convolutions and
        matrix products.

    Raises:
        ValueError: If SpikingJelly 2.0 is not installed.
    """
    counters = spikingjelly_counters()
    additions = counters.SynOpCounter()
    products = counters.MACCounter(extra_ignore_modules=[nn.modules.batchnorm._BatchNorm])
    mode = counters.DispatchCounterMode([additions, products])
    with torch.no_grad(), plain_kernels(model), mode:
        model.test_step(batch)
    return additions.get_total(), products.get_total()


def cross_check(model: nn.Module, batch: Callable[[], Any]) -> dict[str, str]:
    """Count one image here and with SpikingJelly and MMEngine, and put the counts side by side.

    Args:
        model: Detector in evaluation mode.
        batch: Returns what its ``test_step`` takes, the same image each time.

    Returns:
        A sentence for each counter.

    Raises:
        ValueError: If SpikingJelly 2.0 is not installed.
    """

    def count(run: Callable[[], Any]) -> OperationCounter:
        counter = OperationCounter(model)
        with torch.no_grad(), counter.image():
            run()
        return counter

    theirs = spikingjelly_operations(model, batch())
    layers = count(lambda: model.test_step(batch())).layers
    additions = sum(layer.accumulates for layer in layers)
    products = sum(layer.multiply_accumulates for layer in layers)
    found = {
        'SpikingJelly op_counter': f'{theirs[0]:,} additions and {theirs[1]:,} multiply-accumulates, '
        f'here {additions:,} and {products:,}'
    }
    inputs = model.data_preprocessor(batch())['inputs']
    try:
        dense, beside = mmengine_dense(model, inputs)
        here = sum(layer.dense for layer in count(lambda: model(inputs)).layers)
    except Exception as error:  # tracing fails in many ways; it is not what is measured here
        found['MMEngine'] = f'cannot trace this detector ({type(error).__name__})'
        return found
    found['MMEngine'] = f'{dense:,} dense multiply-accumulates of the forward pass, here {here:,}'
    if beside:
        others = ', '.join(f'{name} {count:,}' for name, count in beside.items())
        found['MMEngine'] += f'; it counts beside them {others}'
    return found
