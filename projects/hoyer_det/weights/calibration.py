"""Sets the thresholds of a network that was not trained with spikes."""

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

_SAMPLE = 1_000_000  # potentials from which the quantiles are read


@HOOKS.register_module()
class CalibrateThresholdsHook(Hook):
    r"""Before the first iteration, chooses each threshold on training data, so that the network spikes.

    Of some candidates the threshold becomes the one at which the layer's spikes :math:`o` are the best
    1-bit picture of the ReLU of its potentials: the largest cosine of the angle between
    :math:`\max(u, 0)` and :math:`o`. Layers are calibrated in the order in which they run, so each sees
    what the calibrated ones before it send. For a normal potential around 0 that makes 27 % of the
    neurons fire.

    Then the running averages of batch norms and neurons are taken anew on the same batches: those of
    the source belong to real-valued inputs. Parts that are frozen or in evaluation mode stay as they
    are. Nothing happens in a run that is resumed. For weights that were trained with spikes leave the
    hook out.

    Args:
        batches: Number of training batches to look at.
        candidates: Number of candidates, quantiles of the layer's positive potentials.

    Raises:
        ValueError: If a number is below 1, or the model has no ``HoyerSpike`` in training mode.
    """

    def __init__(self, batches: int = 4, candidates: int = 20) -> None:
        if min(batches, candidates) < 1:
            raise ValueError(
                f'CalibrateThresholdsHook: batches={batches} and candidates={candidates} must be at '
                'least 1'
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
            raise ValueError('CalibrateThresholdsHook: no HoyerSpike in training mode in the model')
        batches = list(islice(runner.train_dataloader, self.batches))
        with torch.no_grad(), plain_kernels(model):
            chosen = self._choose(model, layers, batches)
            _renew_statistics(model, layers, batches)
        silent = [name for name in layers if name not in chosen]
        runner.logger.info(
            f'Thresholds calibrated on {len(batches)} batches: '
            + ', '.join(f'{name} {value:.3g}' for name, value in chosen.items())
            + (f'; without positive potential, left alone: {", ".join(silent)}' if silent else '')
        )

    def _choose(
        self, model: nn.Module, layers: dict[str, HoyerSpike], batches: list[Any]
    ) -> dict[str, float]:
        found: dict[str, list[Tensor]] = {}

        def listener(name: str) -> Any:
            def choose(layer: HoyerSpike, inputs: tuple[Tensor, ...]) -> None:
                best = best_threshold(layer, inputs[0], self.candidates)
                if best is not None:
                    layer.threshold.fill_(best)
                    found.setdefault(name, []).append(best)

            return choose

        handles = [m.register_forward_pre_hook(listener(name)) for name, m in layers.items()]
        try:
            for batch in batches:
                _run(model, batch)
        finally:
            for handle in handles:
                handle.remove()
        for name, layer in layers.items():
            if name in found:
                layer.threshold.copy_(torch.stack(found[name]).mean())
            # Other processes looked at other images, and DDP does not compare parameters again.
            all_reduce(layer.threshold.data, 'mean')
        return {name: layers[name].threshold.item() for name in found}


def best_threshold(layer: HoyerSpike, potential: Tensor, candidates: int) -> Tensor | None:
    """Return the threshold whose spikes resemble the ReLU of the potential most.

    Args:
        layer: The neuron; its threshold and running averages are left changed.
        potential: Its input, (N, C, ...).
        candidates: Number of quantiles of the positive potentials that are tried.

    Returns:
        A scalar, None if no potential is positive.
    """
    potential = potential.float()
    relu = potential.clamp(min=0)
    positive = relu[relu > 0]
    if not positive.numel():
        return None
    sample = positive[:: 1 + positive.numel() // _SAMPLE]
    levels = torch.linspace(0, 1, candidates + 1, device=sample.device)[1:]
    best, best_score = None, -1.0
    for threshold in torch.quantile(sample, levels):
        layer.threshold.fill_(threshold)
        spikes = layer.forward(potential)
        # Squared cosine but for a factor that all candidates share.
        score = float((relu * spikes).sum().square() / spikes.sum().clamp(min=1))
        if score > best_score:
            best, best_score = threshold, score
    return best


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
