"""Stops a training at the first NaN or inf, before it reaches a checkpoint."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from .runner_parts import detector, log_interval

# Of a checkpoint of mmengine; scalars of the log in its other entries may well be NaN.
_ENTRIES = ('state_dict', 'ema_state_dict', 'optimizer')


def first_nonfinite(content: Mapping[Any, Any]) -> str | None:
    """Return the dotted name of the first tensor that holds a NaN or an inf, None if there is none.

    Args:
        content: Tensors in nested mappings and sequences; other values are passed over.
    """
    tensors = dict(_tensors(content, ''))
    sums: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors.values():
        # Of finite numbers the sum may overflow as well, so this only rules out.
        sums.setdefault(tensor.device, []).append(tensor.sum(dtype=torch.float64))
    if all(bool(torch.stack(each).isfinite().all()) for each in sums.values()):
        return None
    return next((n for n, tensor in tensors.items() if not tensor.isfinite().all()), None)


def nonfinite_in_checkpoint(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the name of the first weight or optimizer state with a NaN or an inf, None without."""
    return first_nonfinite({key: checkpoint[key] for key in _ENTRIES if key in checkpoint})


def _tensors(content: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        if content.is_floating_point():
            yield name, content.detach()
    elif isinstance(content, Mapping | list | tuple):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from _tensors(value, f'{name}.{key}' if name else str(key))


@HOOKS.register_module()
class CheckFiniteHook(Hook):
    """Raises where a loss, a weight, a buffer or a state of the optimizer is NaN or inf.

    Losses and weights are looked at in the interval of the log, at the last iteration and after every
    epoch; a gradient that is NaN or inf shows in the weights, where the step of the optimizer takes it.
    Before every checkpoint all that it holds is looked at, so none with a NaN is written. A process
    that finds nothing raises as soon as another one does. MMDetection's ``CheckInvalidLossHook`` looks at
    the sum of the losses alone.

    Args:
        interval: Iterations between two checks; that of the ``LoggerHook`` by default.

    Raises:
        ValueError: If the interval is below 1.
    """

    priority = 'BELOW_NORMAL'  # after hooks that know more (HoyerRegularizerHook) or add (EMAHook)

    def __init__(self, interval: int | None = None) -> None:
        if interval is not None and interval < 1:
            raise ValueError(f'CheckFiniteHook: interval must be at least 1, got {interval}')
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Take over the interval of the log."""
        if self.interval is None:
            self.interval = log_interval(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Tensor] | None = None,
    ) -> None:
        """Check losses and weights."""
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            losses = {k: v for k, v in (outputs or {}).items() if 'loss' in k}
            # The parts first: they tell more than their sum.
            losses = {k: losses[k] for k in sorted(losses, key=lambda k: k == 'loss')}
            self._check(runner, losses, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check the weights, in every process, before the checkpoint of the epoch."""
        self._check(runner, {}, runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check all that is about to be written."""
        name = nonfinite_in_checkpoint(checkpoint)
        if name is not None:
            at = _message(name, checkpoint['meta']['iter'])
            raise FloatingPointError(f'No checkpoint is written: {at}')

    @staticmethod
    def _check(runner: Runner, losses: dict[str, Tensor], iteration: int) -> None:
        model = detector(runner)
        name = first_nonfinite(losses) or first_nonfinite(model.state_dict())
        flag = torch.tensor(int(name is not None), device=next(model.parameters()).device)
        all_reduce(flag, 'max')
        if flag:
            raise FloatingPointError(
                _message(name or 'a loss or weight of another process', iteration)
            )


def _message(name: str, iteration: int) -> str:
    return (
        f'{name} is NaN or inf at iteration {iteration}; lower the learning rate, clip gradients, '
        'or train in float32 or bfloat16 instead of float16'
    )
