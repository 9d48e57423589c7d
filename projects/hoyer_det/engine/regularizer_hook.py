"""Adds the Hoyer regularizer to the losses of any MMDetection detector."""

from contextlib import ExitStack
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ..spiking import check_potentials, record_hoyer_squares, spiking_layers
from .learning_rates import warn_of_slow_parts
from .runner_parts import detector, log_interval


@HOOKS.register_module()
class HoyerRegularizerHook(Hook):
    r"""Adds ``loss_hoyer`` to the losses of the detector that is trained.

    .. math:: L = L_\mathrm{det} + \mathrm{weight} \cdot \textstyle\sum_l H_l

    with the Hoyer square :math:`H_l` of each ``HoyerSpike`` layer in training mode (arXiv
    2212.10170). The hook listens to the forward call of the model in ``mode='loss'``, so it works with
    every detector class, and scaling of the loss (AMP, gradient accumulation) covers the term like any
    other. At each log interval, and before an epoch's checkpoint, it also checks that no layer was fed
    NaN or inf.

    As in the paper, :math:`H_l` runs over the whole batch, so the strength of the term grows with the
    number of images in it, and in a distributed run with those of one process: 16 images in one
    process give about eight times the term of 2 images in each of eight. ``per_image`` divides by that
    number; with it, weights are comparable between batch sizes.

    Where the model has ``SyncBatchNorm`` layers, the sums of the neurons run over all processes too
    (``HoyerSpike.synchronise``).

    Args:
        weight: Weight of the sum; 1e-8 in the paper's classifiers, 1e-9 in its authors' detector. With
            0 only the check for NaN and inf remains.
        per_image: Whether each :math:`H_l` is divided by the number of images it was taken over.
        check_interval: Iterations between two such checks; that of the ``LoggerHook`` by default.

    Raises:
        ValueError: If the weight is no finite number of at least 0, or the model has no ``HoyerSpike``.
    """

    def __init__(
        self, weight: float = 1e-8, per_image: bool = False, check_interval: int | None = None
    ) -> None:
        if not (isinstance(weight, int | float) and 0 <= weight < float('inf')):
            raise ValueError(
                f'HoyerRegularizerHook: weight must be a finite number of at least 0, got {weight!r}'
            )
        self.weight = weight
        self.per_image = per_image
        self.check_interval = check_interval
        self._recording = ExitStack()
        self._squares: list[torch.Tensor] = []

    def before_train(self, runner: Runner) -> None:
        """Start to listen to the forward calls of the model."""
        model = detector(runner)
        if not spiking_layers(model):
            raise ValueError(
                f'HoyerRegularizerHook: {type(model).__name__} has no HoyerSpike layer to regularize. '
                "Use a spiking backbone or act_cfg=dict(type='HoyerSpike'), or remove the hook from "
                'custom_hooks'
            )
        warn_of_slow_parts(runner, model)
        if any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
            for layer in spiking_layers(model).values():
                layer.synchronise = True
        if self.check_interval is None:
            self.check_interval = log_interval(runner)
        if self.weight > 0:
            self._handles = [
                model.register_forward_pre_hook(self._begin, with_kwargs=True),
                model.register_forward_hook(self._end, with_kwargs=True, always_call=True),
            ]

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        for handle in getattr(self, '_handles', []):
            handle.remove()

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Look for NaN and inf at the log interval."""
        if self.every_n_train_iters(runner, self.check_interval) or self.is_last_train_iter(runner):
            check_potentials(detector(runner))

    def after_train_epoch(self, runner: Runner) -> None:
        """Look for NaN and inf before a checkpoint of them replaces a good one."""
        check_potentials(detector(runner))

    def _begin(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        self._recording.close()
        if model.training and torch.is_grad_enabled() and kwargs.get('mode') == 'loss':
            self._squares = self._recording.enter_context(record_hoyer_squares(model))

    def _end(self, model: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        squares, self._squares = self._squares, []
        self._recording.close()
        if not squares or not isinstance(output, dict):
            return output
        total = torch.stack(squares).sum()
        if self.per_image:
            total = total / self._images(model, args, kwargs)
        output['loss_hoyer'] = self.weight * total
        return output

    @staticmethod
    def _images(model: nn.Module, args: tuple, kwargs: dict) -> int:
        """Return the number of images that the Hoyer squares were taken over."""
        inputs = args[0] if args else kwargs['inputs']
        if isinstance(
            inputs, dict
        ):  # of MMDetection's semi-supervised detectors; the teacher evaluates
            images = sum(len(part) for name, part in inputs.items() if name != 'unsup_teacher')
        else:
            images = len(inputs)
        synchronised = any(layer.synchronise for layer in spiking_layers(model).values())
        return images * get_world_size() if synchronised else images
