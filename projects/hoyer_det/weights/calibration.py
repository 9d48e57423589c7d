"""Turns a network that was trained with ReLU into one that spikes, before it is trained on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

from ..kernels import plain_kernels
from ..spiking import HoyerSpike, spiking_layers
from .matching import best_channel_scales, best_threshold, match_inputs, samples


@HOOKS.register_module()
class CalibrateFromANNHook(Hook):
    r"""Before the first iteration, gives the spikes the place of the ReLU that the weights know.

    Weights of a ReLU network expect activations of many sizes, and spikes are all 0 or 1. So the
    training images run through the network twice. First with a ReLU for each neuron: what every
    convolution reads then is remembered. Then with spikes, in the order in which layers run:

    - A neuron behind a batch norm, with ``extremum='channel'`` or ``'fixed'``, gets the threshold 1, and
      each channel of the norm is divided by that scale :math:`k` (of some candidates) at which the
      spikes follow the ReLU :math:`r` of the potentials best, which is where
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

    Raises:
        ValueError: If a number is below 1, or the model has no ``HoyerSpike`` in training mode.
    """

    def __init__(self, batches: int = 6, candidates: int = 24) -> None:
        if min(batches, candidates) < 1:
            raise ValueError(
                f'CalibrateFromANNHook: batches={batches} and candidates={candidates} must be at least 1'
            )
        self.batches = batches
        self.candidates = candidates

    def before_train(self, runner: Runner) -> None:
        """Calibrate."""
        if runner.iter > 0:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.train()
        layers = {name: m for name, m in spiking_layers(model).items() if m.training}
        if not layers:
            raise ValueError('CalibrateFromANNHook: no HoyerSpike in training mode in the model')
        batches = list(islice(runner.train_dataloader, self.batches))
        images = _merge(batches)
        with torch.no_grad(), plain_kernels(model):
            targets = _what_convolutions_read(model, layers, images)
            by_channel, by_layer = self._convert(model, layers, targets, images)
            _renew_statistics(model, layers, batches)
        # An average over steps (EMAHook) must not start from the ReLU network.
        for average in (getattr(hook, 'ema_model', None) for hook in runner.hooks):
            if average is not None:
                average.module.load_state_dict(model.state_dict())
        silent = [name for name in layers if name not in by_channel | by_layer]
        runner.logger.info(
            f'Spikes for ReLU on {len(batches)} batches: {len(by_channel)} neurons by channel, '
            f'{len(by_layer)} by layer, inputs of {len(targets)} convolutions matched'
            + (f'; without positive potential, left alone: {", ".join(silent)}' if silent else '')
        )

    def _convert(
        self,
        model: nn.Module,
        layers: dict[str, HoyerSpike],
        targets: dict[nn.Module, Tensor],
        images: Any,
    ) -> tuple[set[str], set[str]]:
        """Set neurons and convolutions; return the names of the neurons set by channel and by layer."""
        by_channel: set[str] = set()
        by_layer: set[str] = set()
        names = {layer: name for name, layer in layers.items()}
        norms = _NormOfPotential(model)

        def set_neuron(layer: HoyerSpike, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            name = names[layer]
            if name in by_channel | by_layer:
                return None
            potential, norm = norms.find(inputs)
            if norm is None or layer.extremum == 'layer':
                best = best_threshold(layer, potential, self.candidates)
                if best is not None:
                    layer.threshold.copy_(_mean_of_processes(best))
                    by_layer.add(name)
                return None
            if not (potential > 0).any():
                return None
            scale = _mean_of_processes(
                best_channel_scales(layer, samples(potential), self.candidates)
            )
            norm.weight.div_(scale)
            norm.bias.div_(scale)
            by_channel.add(name)
            if len(inputs) > 1:  # the norm is computed inside
                return None
            return (potential / scale.view(-1, *[1] * (potential.dim() - 2)),)

        waiting = dict(targets)

        def set_convolution(conv: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
            target = waiting.pop(conv, None)
            if target is not None:
                match_inputs(conv, samples(inputs[0]), target, _mean_of_processes)

        with norms, _hooks(layers.values(), set_neuron), _hooks(targets, set_convolution):
            _run(model, images)
        return by_channel, by_layer


class _NormOfPotential:
    """Finds the batch norm that made a membrane potential, while the block runs."""

    def __init__(self, model: nn.Module) -> None:
        self._norms = [m for m in model.modules() if _is_scaling(m)]
        self._latest: tuple[Tensor | None, nn.Module | None] = None, None

    def find(self, inputs: tuple[Any, ...]) -> tuple[Tensor, nn.Module | None]:
        """Return the potential and its norm, None if none, from what a neuron is called with."""
        if len(inputs) > 1 and inputs[1] is not None:
            norm = inputs[1]
            return norm(inputs[0]), norm if _is_scaling(norm) else None
        output, norm = self._latest
        return inputs[0], norm if inputs[0] is output else None

    def __enter__(self) -> None:
        def remember(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._latest = output, norm

        self._handles = [norm.register_forward_hook(remember) for norm in self._norms]

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._latest = None, None


def _is_scaling(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.affine and module.weight.requires_grad


def _what_convolutions_read(
    model: nn.Module, layers: dict[str, HoyerSpike], images: Any
) -> dict[nn.Module, Tensor]:
    """Run the network with a ReLU for each neuron; return samples of each convolution's first input."""
    found: dict[nn.Module, Tensor] = {}
    norms = _NormOfPotential(model)

    def rectify(layer: HoyerSpike, inputs: tuple[Any, ...], spikes: Tensor) -> Tensor:
        return norms.find(inputs)[0].clamp(min=0)

    def remember(conv: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        found.setdefault(conv, samples(inputs[0]))

    convs = [
        m
        for m in model.modules()
        if isinstance(m, nn.Conv2d) and m.training and m.weight.requires_grad
    ]
    handles = [layer.register_forward_hook(rectify) for layer in layers.values()]
    try:
        with norms, _hooks(convs, remember):
            _run(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def _hooks(modules: Any, hook: Callable[..., Any]) -> Iterator[None]:
    """Call a hook before each of the modules while the block runs."""
    handles = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mean_of_processes(value: Tensor) -> Tensor:
    """Average over processes, which saw other images; DDP does not compare parameters again."""
    all_reduce(value, 'mean')
    return value


def _merge(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Put batches together, so that the deepest layers have enough positions to be measured on."""
    return {
        key: torch.cat([batch[key] for batch in batches])
        if isinstance(value, Tensor)
        else [item for batch in batches for item in batch[key]]
        for key, value in batches[0].items()
    }


def _run(model: nn.Module, batch: Any) -> None:
    model._run_forward(model.data_preprocessor(batch, True), mode='loss')


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
        _run(model, batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
