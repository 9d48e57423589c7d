"""Makes up for a validation in which a training was killed."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from ..files import write_text

NOTE = 'last_validation'


class PendingValidationHook(Hook):
    """Validates before a resumed training goes on, where its checkpoint was to be validated and was not.

    mmengine writes the checkpoint first and resumes behind the validation, so that a training that was
    killed in its last one ended without any. The iteration of the newest complete validation stands in
    ``work_dir/last_validation``.
    """

    priority = 'LOWEST'  # everything else is ready for a validation, or has seen its result

    def before_train(self, runner: Runner) -> None:
        """Validate what is due."""
        note = Path(runner.work_dir, NOTE)
        if not runner._resume:
            self._remove_note(runner)
        elif _is_due(runner) and _read(note) != str(runner.iter):
            runner.logger.info(f'Validating first: iteration {runner.iter} was not yet.')
            runner.val_loop.run()

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the former validation."""
        self._remove_note(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Note that the validation is complete."""
        if is_main_process():
            write_text(Path(runner.work_dir, NOTE), str(runner.iter))

    @staticmethod
    def _remove_note(runner: Runner) -> None:
        if is_main_process():
            Path(runner.work_dir, NOTE).unlink(missing_ok=True)


def _read(note: Path) -> str | None:
    return note.read_text() if note.is_file() else None


def _is_due(runner: Runner) -> bool:
    """Tell whether the training loop validates at the position that it resumes from."""
    loop = runner.train_loop
    if runner.val_loop is None:
        return False
    loop._decide_current_val_interval()
    if isinstance(loop, IterBasedTrainLoop):
        done, last = loop.iter, loop.max_iters
    else:
        done, last = loop.epoch, loop.max_epochs
    return done > 0 and done >= loop.val_begin and (done % loop.val_interval == 0 or done == last)
