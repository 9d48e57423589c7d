"""Keeps the input size of multi-scale training, so that it resumes exactly."""

from collections.abc import Iterator
from typing import Any

from mmdet.models.data_preprocessors import BatchSyncRandomResize
from mmengine.hooks import Hook
from mmengine.runner import Runner

_KEY = 'input_sizes'


class InputSizeHook(Hook):
    """Writes the sizes that ``BatchSyncRandomResize`` drew into the checkpoints, and gives them back.

    It draws a size at times and keeps it for several iterations, which a training that is resumed between two
    draws would otherwise go through at the size of the images.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Write the sizes (height, width)."""
        sizes = {name: resize._input_size for name, resize in _resizes(runner)}
        if sizes:
            checkpoint[_KEY] = sizes

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Set the sizes where a training is resumed."""
        if runner._resume:
            for name, resize in _resizes(runner):
                resize._input_size = checkpoint.get(_KEY, {}).get(name)


def _resizes(runner: Runner) -> Iterator[tuple[str, BatchSyncRandomResize]]:
    for name, module in runner.model.named_modules():
        if isinstance(module, BatchSyncRandomResize):
            yield name.removeprefix('module.'), module
