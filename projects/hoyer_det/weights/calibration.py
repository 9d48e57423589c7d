"""Turns a network that was trained with ReLU into one that spikes, before it is trained on."""

import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from ..kernels import plain_kernels
from ..spiking import HoyerSpike, spiking_layers
from .first_batches import first_batches, kept_generators, merge, restart_averages, run
from .from_ann import modules_from_ann
from .matching import best_channel_scales, best_threshold, match_inputs, samples


@HOOKS.register_module()
class CalibrateFromANNHook(Hook):
    r"""Before the first iteration, gives the spikes the place of the ReLU that the weights know.

    Weights of a ReLU network expect activations of many sizes, and spikes are all 0 or 1. So the
    training images run through the network twice. First with a ReLU for each neuron: what every
    convolution reads then is remembered. Then with spikes, in the order in which layers run:

    - A neuron that alone reads a batch norm, with ``extremum='channel'`` or ``'fixed'``, gets the
      threshold 1, and each channel of the norm is divided by that scale :math:`k` (of some candidates) at
      which the spikes follow the ReLU :math:`r` of the potentials best, which is where
      :math:`\mathrm{cov}(o, r)^2 / \mathrm{var}(o)` is largest. A neuron elsewhere, or with one
      extremum for the layer, gets the threshold that is best for the whole layer.
    - Of a convolution that reads them, the kernels of each input channel are multiplied by
      :math:`\alpha = \mathrm{std}(r) / \mathrm{std}(o)`, and a bias, if there is one, is moved so that
      :math:`\alpha o` and :math:`r` have the same mean. The scale by least squares would be smaller, and
      detections then drown: on ``voc_sample`` 0.018 against 0.036 mAP before any training.

    At last the running averages of norms and neurons are taken anew on the same images. Convolutions and
    neurons that run several times, as in a head shared by feature levels, are set at the first. Frozen
    parts stay as they are. Nothing happens in a run that is resumed. For weights that were trained with
    spikes leave the hook out.

    Args:
        batches: Number of training batches to look at.
        candidates: Number of candidates for a scale or a threshold.
        only_from_ann: Whether a model without a part that ``FromANN`` initialises is left alone, and so
            is one with a ``load_from``.

    Raises:
        ValueError: If a number is below 1, or the model has no ``HoyerSpike`` in training mode.
    """

    priority = 'HIGH'  # before MMDetection's MeanTeacherHook copies the student

    def __init__(self, batches: int = 6, candidates: int = 24, only_from_ann: bool = False) -> None:
        if min(batches, candidates) < 1:
            raise ValueError(
                f'CalibrateFromANNHook: batches={batches} and candidates={candidates} must be at least 1'
            )
        self.batches = batches
        self.candidates = candidates
        self.only_from_ann = only_from_ann

    def before_train(self, runner: Runner) -> None:
        """Calibrate."""
        if runner.iter > 0:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if self.only_from_ann and (runner._load_from or not any(modules_from_ann(model))):
            runner.logger.info('Weights do not come from a ReLU network: nothing to convert')
            return
        batches = first_batches(runner, self.batches)
        with kept_generators():
            summary = convert_from_ann(model, batches, self.batches, self.candidates)
        restart_averages(runner, model)
        runner.logger.info(summary)


def convert_from_ann(
    model: nn.Module, dataloader: Iterable[Any], batches: int = 6, candidates: int = 24
) -> str:
    """Do the work of :class:`CalibrateFromANNHook`.

    Args:
        model: Spiking detector with the weights of a ReLU network; changed, and in training mode after.
        dataloader: Training batches.
        batches: As for the hook.
        candidates: As for the hook.

    Returns:
        What was done, in a line.

    Raises:
        ValueError: If the model has no ``HoyerSpike`` in training mode.
    """
    model.train()
    layers = {name: m for name, m in spiking_layers(model).items() if m.training}
    if not layers:
        raise ValueError('CalibrateFromANNHook: no HoyerSpike in training mode in the model')
    looked_at = list(islice(dataloader, batches))
    images = merge(looked_at)
    with torch.no_grad(), plain_kernels(model):
        targets, norms = _observe_relu(model, layers, images)
        by_channel, by_layer = _convert(model, layers, targets, norms, images, candidates)
        _renew_statistics(model, layers, looked_at)
    silent = [name for name, m in layers.items() if m not in by_channel | by_layer]
    return (
        f'Spikes for ReLU on {len(looked_at)} batches: {len(by_channel)} neurons by channel, '
        f'{len(by_layer)} by layer, inputs of {len(targets)} convolutions matched'
        + (f'; without positive potential, left alone: {", ".join(silent)}' if silent else '')
    )


def _convert(
    model: nn.Module,
    layers: dict[str, HoyerSpike],
    targets: dict[nn.Module, Tensor],
    norms: dict[HoyerSpike, nn.Module],
    images: Any,
    candidates: int,
) -> tuple[set[HoyerSpike], set[HoyerSpike]]:
    """Set neurons and convolutions; return the neurons set by channel and those set by layer."""
    by_channel: set[HoyerSpike] = set()
    by_layer: set[HoyerSpike] = set()

    def set_neuron(layer: HoyerSpike, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if layer in by_channel | by_layer:
            return None
        potential, norm = inputs[0], norms.get(layer)
        # Decided together: a process that returned alone would leave the others waiting for it.
        if _mean_of_processes((potential > 0).any().float()) < 1:
            return None
        if norm is None or layer.extremum == 'layer':
            best = best_threshold(layer, potential, candidates)
            layer.threshold.copy_(_mean_of_processes(best))
            by_layer.add(layer)
            return None
        scale = _mean_of_processes(best_channel_scales(layer, samples(potential), candidates))
        norm.weight.div_(scale)
        norm.bias.div_(scale)
        by_channel.add(layer)
        return (potential / scale.view(-1, *[1] * (potential.dim() - 2)),)

    waiting = dict(targets)

    def set_convolution(conv: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        target = waiting.pop(conv, None)
        if target is not None:
            match_inputs(conv, samples(inputs[0]), target, _mean_of_processes)

    with ExitStack() as hooks:
        for layer in layers.values():
            hooks.enter_context(layer.register_forward_pre_hook(set_neuron))
        for conv in targets:
            hooks.enter_context(conv.register_forward_pre_hook(set_convolution))
        run(model, images)
    return by_channel, by_layer


def _observe_relu(
    model: nn.Module, layers: dict[str, HoyerSpike], images: Any
) -> tuple[dict[nn.Module, Tensor], dict[HoyerSpike, nn.Module]]:
    """Run the network with a ReLU for each neuron.

    Returns:
        Samples of each convolution's first input; and for each neuron the batch norm whose output it
        alone reads, where there is one.
    """
    found: dict[nn.Module, Tensor] = {}
    outputs = _NormOutputs()

    def rectify(layer: HoyerSpike, inputs: tuple[Tensor, ...], spikes: Tensor) -> Tensor:
        relu = inputs[0].clamp(min=0)
        outputs.reader = None
        return relu

    def remember(conv: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        found.setdefault(conv, samples(inputs[0]))

    with ExitStack() as hooks:
        for layer in layers.values():
            hooks.enter_context(layer.register_forward_pre_hook(outputs.begin))
            hooks.enter_context(layer.register_forward_hook(rectify))
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.training and module.weight.requires_grad:
                hooks.enter_context(module.register_forward_pre_hook(remember))
            elif _is_scaling(module):
                hooks.enter_context(module.register_forward_hook(outputs.note))
        hooks.enter_context(outputs)
        run(model, images)
    return found, outputs.norms()


class _NormOutputs(TorchFunctionMode):
    """Notes what reads the outputs of batch norms while the block runs.

    A norm may be rescaled for a neuron only if nothing else reads it: the norm of a ResNet's stem is
    also the beginning of the real-valued stream. What a neuron does inside is the neuron's reading.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reader: HoyerSpike | None = None
        self._norms: dict[nn.Module, set[Any]] = {}
        self._several: set[nn.Module] = set()
        self._outputs: dict[int, tuple[weakref.ref, nn.Module]] = {}

    def norms(self) -> dict[HoyerSpike, nn.Module]:
        """Return the norm of each neuron that is its only reader."""
        return {
            next(iter(readers)): norm
            for norm, readers in self._norms.items()
            if len(readers) == 1 and None not in readers and norm not in self._several
        }

    def begin(self, neuron: HoyerSpike, inputs: tuple[Tensor, ...]) -> None:
        """A neuron is about to run."""
        self.reader = neuron

    def note(self, norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A norm has run."""
        if norm in self._norms:
            self._several.add(norm)
        self._norms.setdefault(norm, set())
        self._outputs[id(output)] = weakref.ref(output), norm

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor | tuple | list):  # not a question after the shape
            for value in (*args, *(kwargs or {}).values()):
                for tensor in value if isinstance(value, list | tuple) else (value,):
                    reference, norm = self._outputs.get(id(tensor), (None, None))
                    if reference is not None and reference() is tensor:
                        self._norms[norm].add(self.reader)
        return result


def _is_scaling(module: nn.Module) -> bool:
    return (
        isinstance(module, _BatchNorm)
        and module.training
        and module.affine
        and module.weight.requires_grad
    )


def _mean_of_processes(value: Tensor) -> Tensor:
    """Average over processes, which saw other images; DDP does not compare parameters again."""
    all_reduce(value, 'mean')
    return value


def _renew_statistics(model: nn.Module, layers: dict[str, HoyerSpike], batches: list[Any]) -> None:
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        if norm.track_running_stats:
            norm.reset_running_stats()
        norm.momentum = None  # the plain average of the batches
    for layer in layers.values():
        layer.running_extremum.zero_()
        layer.running_weight.zero_()
    for batch in batches:
        run(model, batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
