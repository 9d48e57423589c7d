"""The stages of ``hoyer-det train CONFIG --from-twin``."""

import copy
import random
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch import nn

from ..engine.distillation_hook import incomparable
from ..engine.runner_parts import detector
from ..spiking import spiking_layers
from ..twins import make_twin
from ..weights import CalibrateFromANNHook
from ..weights.reading import drop_starts, read_checkpoint
from .differences import learning_settings
from .stages import MakeRunner, Resume, StagedTraining, name_visualizer

TWIN_SHARE = 0.75
# Converted weights are good already, and large steps would lose what they know.
LEARNING_RATE = 0.25
# Hooks that another stage has done the work of, or whose average would begin with other weights.
_OTHERS = ('CalibrateFromANNHook', 'DistillationHook')


class FromTwin(StagedTraining):
    """Trains a spiking network by way of its ReLU twin: twin, conversion, fine-tuning.

    The twin has its share of the epochs and the config's schedule, shortened to them; its run is in
    ``work_dir/twin``. The conversion (:func:`hoyer_det.weights.convert_from_ann`) is in
    ``work_dir/conversion``. Fine-tuning has the other epochs, a quarter of the learning rate, and the
    twin as its teacher (``DistillationHook``); its run is in ``work_dir`` itself. What each stage reached
    stands in ``work_dir/from_twin.json``, and stages that stand there are not run again.

    Args:
        cfg: Completed config of a spiking network, with a ``work_dir`` and ``max_epochs``.
        share: The twin's share of the epochs, in (0, 1).
        teacher: Whether the twin teaches.
        resume: Whether to go on with what is in the work folder.

    Raises:
        Exception: Whatever building the twin raises.
        ValueError: If the epochs cannot be shared so, the config has no twin, or one that cannot teach, or
            the work folder holds another such training, or this one without ``resume``.
    """

    def __init__(
        self, cfg: Config, share: float, teacher: bool = True, resume: bool = False
    ) -> None:
        epochs = _epochs(cfg, share)
        plan = dict(epochs=list(epochs), teacher=teacher, **learning_settings(cfg))
        lengths = {
            name: f'{number} epochs'
            for name, number in zip(('twin', 'fine-tuning'), epochs, strict=True)
        }
        super().__init__(cfg, '--from-twin', plan, lengths, resume, of_last=('teacher',))
        self._twin = make_twin(cfg, 'relu')
        self._twin.work_dir = str(self.work_dir / 'twin')
        _shorten(self._twin, epochs[0])
        self._tuned = copy.deepcopy(cfg)
        _shorten(self._tuned, epochs[1])
        name_visualizer(self._twin, 'twin')
        if 'lr' not in self._tuned.optim_wrapper.optimizer:
            raise ValueError(
                f'{cfg.filename}: optim_wrapper.optimizer.lr is not there; --from-twin fine-tunes with '
                f'{LEARNING_RATE:g} of it'
            )
        self._tuned.optim_wrapper.optimizer.lr *= LEARNING_RATE
        drop_starts(self._tuned.model)  # all weights come from the twin
        self._tuned.custom_hooks = [
            hook for hook in self._tuned.get('custom_hooks') or [] if hook['type'] not in _OTHERS
        ]
        self._teacher = teacher
        with torch.device('meta'):
            twin = MODELS.build(copy.deepcopy(self._twin.model))
        if teacher and not hasattr(twin, 'bbox_head'):
            raise ValueError(
                f'{cfg.filename}: the ReLU twin, a {type(twin).__name__}, has no bbox_head and cannot teach; '
                'add --no-teacher'
            )

    def run(self, make_runner: MakeRunner, resume: Resume) -> None:
        """Run the stages that are not complete.

        Args:
            make_runner: Makes the runner of a config, unless its ``check`` refuses it.
            resume: Lets a config go on from the newest checkpoint in its work folder.

        Raises:
            ValueError: If the twin has a head that cannot teach, before it is trained.
        """
        if not self._complete('twin') and (self._teacher or not self._complete('conversion')):
            check = partial(check_teacher, file=self._tuned.filename) if self._teacher else None
            self._train('twin', self._twin, partial(make_runner, check=check), resume)
        if not self._complete('conversion'):
            self._convert(make_runner)
        if not self._complete('fine-tuning'):
            tuned = self._tuned
            tuned.load_from = str(self._checkpoint('conversion'))
            if self._teacher:
                teacher = dict(type='DistillationHook', checkpoint=str(self._checkpoint('twin')))
                tuned.custom_hooks = [*tuned.custom_hooks, teacher]
            self._train('fine-tuning', tuned, make_runner, resume)

    def _convert(self, make_runner: MakeRunner) -> None:
        cfg = copy.deepcopy(self._tuned)
        cfg.work_dir = str(self.work_dir / 'conversion')
        cfg.load_from, cfg.resume = None, False  # the weights are the twin's
        cfg.experiment_name = 'conversion'
        name_visualizer(cfg, 'conversion')
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'EMAHook']
        runner = make_runner(cfg)
        model = detector(runner)
        load_twin(model, self._checkpoint('twin'))
        CalibrateFromANNHook().before_train(runner)
        metrics = runner.val()
        runner.save_checkpoint(
            cfg.work_dir,
            'converted.pth',
            save_optimizer=False,
            save_param_scheduler=False,
            backend_args=dict(backend='atomic_local'),
        )
        self._finish('conversion', Path(cfg.work_dir) / 'converted.pth', metrics)


def check_teacher(runner: Runner, file: str) -> None:
    """Make sure, on one training image, that the head of a twin can teach; leave all as it was.

    Args:
        runner: The twin's.
        file: Config of the spiking network.

    Raises:
        ValueError: If ``DistillationHook`` could not compare its answers.
    """
    model = detector(runner)
    modes = {module: module.training for module in model.modules()}
    states = random.getstate(), np.random.get_state()
    try:
        with torch.no_grad(), torch.random.fork_rng([]):
            image = pseudo_collate([runner.train_loop.dataloader.dataset[0]])
            model.eval()
            images = model.data_preprocessor(image)['inputs']
            reason = incomparable(model.bbox_head, model.extract_feat(images))
    finally:
        for module, mode in modes.items():
            module.training = mode
        random.setstate(states[0])
        np.random.set_state(states[1])
    if reason is not None:
        raise ValueError(
            f'{file}: the {type(model.bbox_head).__name__} of the ReLU twin {reason} and cannot teach; '
            'add --no-teacher'
        )


def load_twin(model: nn.Module, checkpoint: str | Path) -> None:
    """Give a spiking network the weights of its ReLU twin; neurons keep their own.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds other weights than those of the twin.
    """
    weights = read_checkpoint(checkpoint).weights
    own = model.state_dict()
    neurons = {
        f'{name}.{leaf}'
        for name, layer in spiking_layers(model).items()
        for leaf in layer.state_dict()
    }
    wrong = sorted((own.keys() - neurons) ^ weights.keys())
    wrong += [
        name for name in weights.keys() & own.keys() if weights[name].shape != own[name].shape
    ]
    if wrong:
        raise ValueError(
            f'{checkpoint}: not the ReLU twin of {type(model).__name__}: {len(wrong)} weights missing, '
            f'left over or of another shape (first: {wrong[0]})'
        )
    model.load_state_dict(weights, strict=False)


def _epochs(cfg: Config, share: float) -> tuple[int, int]:
    """Return the epochs of the twin and those of fine-tuning."""
    total = (cfg.get('train_cfg') or {}).get('max_epochs')
    if total is None:
        raise ValueError(
            f'{cfg.filename}: --from-twin shares out train_cfg.max_epochs, there is none'
        )
    if not 0 < share < 1:
        raise ValueError(f'--twin-share {share:g}: must lie between 0 and 1')
    twin = round(share * total)
    if not 1 <= twin < total:
        raise ValueError(
            f'--twin-share {share:g}: of {total} epochs (train_cfg.max_epochs) the twin would have {twin}; '
            'both stages need at least 1'
        )
    return twin, total - twin


def _shorten(cfg: Config, epochs: int) -> None:
    """Give a config fewer epochs, and shorten its schedules with them."""
    ratio = epochs / cfg.train_cfg.max_epochs
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if not scheduler.get('by_epoch', True):
            continue
        for key in ('T_max', 'begin', 'end', 'step_size', 'total_iters', 'total_steps'):
            if scheduler.get(key) is not None:
                first = scheduler.get('begin', 0)
                least = 0 if key == 'begin' else first + 1 if key == 'end' else 1
                scheduler[key] = max(least, round(scheduler[key] * ratio))
        for key in ('milestones', 'periods'):
            if key in scheduler:
                scheduler[key] = [max(1, round(epoch * ratio)) for epoch in scheduler[key]]
    for hook in cfg.get('custom_hooks') or []:
        if 'switch_epoch' in hook:  # of PipelineSwitchHook
            hook.switch_epoch = max(1, round(hook.switch_epoch * ratio))
    if 'val_begin' in cfg.train_cfg:
        cfg.train_cfg.val_begin = max(1, round(cfg.train_cfg.val_begin * ratio))
    cfg.train_cfg.max_epochs = epochs
    cfg.train_cfg.val_interval = min(cfg.train_cfg.get('val_interval', 1), epochs)
