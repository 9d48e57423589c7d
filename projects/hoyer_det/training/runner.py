"""MMEngine's runner: a set-up that leaves nothing when it fails, a training that resumes exactly."""

import ast
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmengine.device import get_device
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from torch import nn

from ..detectors.channels import check_channels
from ..engine.input_size_hook import InputSizeHook
from ..engine.pending_validation_hook import PendingValidationHook
from ..engine.seeding import SeedIterationsHook, seeded_loader
from ..errors import naming
from .processes import on_cpu, without_devices

# MMEngine's default hooks.
_DEFAULTS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


class CommandRunner(Runner):
    """A ``Runner`` that takes back what its own set-up wrote, and only that, when the set-up fails.

    Other processes may write into the same work folder meanwhile: a test often shares the folder of a
    training that is still running. So nothing is found by comparing the folder with what it was. The log
    folder is created here and belongs to this process alone, the config is written when the set-up is
    complete, and the folders above are removed only while they are empty.

    A training that is resumed equals the one that was never interrupted: see ``SeededBatchSampler``,
    ``SeedIterationsHook``, ``InputSizeHook`` and ``PendingValidationHook``.

    After construction, what else can fail before the first iteration goes into :meth:`set_up`::

        runner = CommandRunner.from_cfg(cfg)
        with runner.set_up():
            runner.train_loop

    Args:
        *args: As for ``Runner``.
        **kwargs: As for ``Runner``; ``work_dir`` must be among them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        work_dir = Path(kwargs['work_dir']).absolute()
        self._new_parents = [path for path in (work_dir, *work_dir.parents) if not path.exists()]
        self._new_log_dir: Path | None = None
        with self._undone_on_error():
            super().__init__(*args, **kwargs)

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Set up the processes, and create a log folder that no other run has."""
        if self.distributed and get_device() == 'cpu':
            with without_devices():
                super().setup_env({**env_cfg, 'dist_cfg': on_cpu(env_cfg.get('dist_cfg') or {})})
        else:
            super().setup_env(env_cfg)
        # MMEngine names it by the second, and runs that start in the same second would share it.
        if self._rank == 0:
            while True:
                log_dir = Path(self.work_dir, self._timestamp)
                try:
                    log_dir.mkdir()
                    break
                except FileExistsError:
                    time.sleep(0.2)
                    self._timestamp = time.strftime('%Y%m%d_%H%M%S')
            self._new_log_dir = log_dir
        stamp = [self._timestamp]
        broadcast_object_list(stamp)
        self._timestamp = stamp[0]

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Log the environment and the config, which must be one that a file can hold."""
        try:
            ast.parse(self.cfg.pretty_text)
        except SyntaxError as error:
            raise ValueError(
                f'{self.cfg.filename}: {str(error.text).strip()}: cannot be written into a config file'
            ) from error
        super()._log_env(env_cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger; an error names the key, as in all that is built below."""
        with naming(self.cfg, 'log_level'):
            return super().build_logger(*args, **kwargs)

    def build_visualizer(self, *args: Any, **kwargs: Any) -> Visualizer:
        """Build the visualizer."""
        with naming(self.cfg, 'visualizer'):
            return super().build_visualizer(*args, **kwargs)

    def build_model(self, model: nn.Module | dict[str, Any]) -> nn.Module:
        """Build the model."""
        with naming(self.cfg, 'model'):
            model = super().build_model(model)
            check_channels(model)
            return model

    def register_hook(self, hook: Hook | dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Register one hook."""
        with naming(self.cfg, self._key_of(hook)):
            super().register_hook(hook, *args, **kwargs)

    def _key_of(self, hook: Hook | dict[str, Any]) -> str:
        for key in ('default_hooks', 'custom_hooks'):
            hooks = self.cfg.get(key) or {}
            for name, item in hooks.items() if isinstance(hooks, dict) else enumerate(hooks):
                if item == hook:
                    return f'{key}.{name}'
        return 'hooks'

    def register_hooks(
        self,
        default_hooks: dict[str, Hook | dict[str, Any] | None] | None = None,
        custom_hooks: list[Hook | dict[str, Any]] | None = None,
    ) -> None:
        """Register the hooks of the config, and those that make a resumed training exact."""
        # MMEngine takes None for its own alone.
        kept = {k: v for k, v in (default_hooks or {}).items() if v is not None or k in _DEFAULTS}
        super().register_hooks(kept, custom_hooks)
        for hook in (SeedIterationsHook(), InputSizeHook(), PendingValidationHook()):
            self.register_hook(hook)

    def build_train_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        """Build the loop, with seeds for the samples of its data loader."""
        if isinstance(loop, dict) and isinstance(self._train_dataloader, dict):
            self._train_dataloader = seeded_loader(self._train_dataloader, self.seed)
        with naming(self.cfg, 'train_dataloader or train_cfg'):
            return super().build_train_loop(loop)

    def build_val_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        """Build the loop of validations."""
        with naming(self.cfg, 'val_dataloader, val_cfg or val_evaluator'):
            return super().build_val_loop(loop)

    def build_test_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        """Build the loop of the test."""
        with naming(self.cfg, 'test_dataloader, test_cfg or test_evaluator'):
            return super().build_test_loop(loop)

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Wrap the model for several processes, also where they have no device of their own."""
        if self.distributed and get_device() == 'cpu' and not is_model_wrapper(model):
            if self.cfg.get('sync_bn'):
                raise ValueError(
                    f'sync_bn={self.cfg.sync_bn!r}: PyTorch synchronises batch norms on GPUs alone; leave '
                    'it out, or train in one process'
                )
            model_wrapper_cfg = {
                'type': 'MMDistributedDataParallel',
                'broadcast_buffers': False,
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
                **(model_wrapper_cfg or {}),
                'device_ids': None,  # mmengine would give it that of a GPU
            }
        return super().wrap_model(model_wrapper_cfg, model)

    def dump_config(self) -> None:
        """Do nothing yet: see :meth:`set_up`."""

    @contextmanager
    def set_up(self) -> Iterator[None]:
        """Undo the set-up where the body fails; write the config into the work folder where it does not."""
        with self._undone_on_error():
            yield
            super().dump_config()

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # also an interruption
            if hasattr(self, 'visualizer'):
                self.visualizer.close()  # its threads would go on writing
            if self._new_log_dir is not None:
                shutil.rmtree(self._new_log_dir, ignore_errors=True)
            if os.environ.get('RANK', '0') == '0':
                with suppress(OSError):  # not there yet, or another process has put something in
                    for path in self._new_parents:
                        path.rmdir()
            raise
