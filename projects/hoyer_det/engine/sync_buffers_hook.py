"""Makes the buffers of a distributed run equal, those of an averaged model too."""

from mmdet.registry import HOOKS
from mmengine.dist import all_reduce_params
from mmengine.hooks import EMAHook, SyncBuffersHook
from mmengine.runner import Runner


@HOOKS.register_module()
class SyncAllBuffersHook(SyncBuffersHook):
    """mmengine's ``SyncBuffersHook`` for the model and for the averaged model of every ``EMAHook``.

    Running averages of norms and neurons follow the batches of their own process. mmengine takes the
    mean over the processes for the model alone, so the averaged model, which is validated and saved, kept
    the buffers of its process: each process validated another network, and the first one's was saved.
    With one process nothing happens.
    """

    def before_val_epoch(self, runner: Runner) -> None:
        """Reduce before a validation inside of an epoch."""
        if self.distributed and not self.called_in_train:
            self._reduce_averages(runner)
        super().before_val_epoch(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Reduce before the checkpoint of an epoch."""
        super().after_train_epoch(runner)
        if self.distributed:
            self._reduce_averages(runner)

    @staticmethod
    def _reduce_averages(runner: Runner) -> None:
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                all_reduce_params(hook.ema_model.module.buffers(), op='mean')
