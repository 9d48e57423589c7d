"""Trainings of several stages in one command, each of which is complete or done again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..files import write_json
from .differences import first_difference

_SHOWN = ('pascal_voc/mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP', 'accuracy/top1', 'top1')
MakeRunner = Callable[..., Runner]  # `make_runner` of `hoyer-det train`
# Lets a config go on from the newest checkpoint in its work folder.
Resume = Callable[[Config], None]

# Of `hoyer-det train`, each of which trains in stages.
FLAGS = ('--from-twin', '--from-objects')


class StagedTraining:
    """Stages whose checkpoints and metrics stand in a note in the work folder.

    A stage that stands there, and whose checkpoint is there, is not run again.

    Args:
        cfg: Config of the last stage, with a ``work_dir``.
        flag: Flag of ``hoyer-det train`` that asks for it, for messages.
        plan: What must be the same to go on with what is in the folder.
        lengths: How long the stages are that train, by name: ``'24 epochs'``.
        resume: Whether to go on with it.
        of_last: Keys of the plan that may change until the last stage has a checkpoint.

    Attributes:
        stages: By name, checkpoint and metrics of what is complete.

    Raises:
        ValueError: If the work folder holds such a training with another plan, or one without
            ``resume``, or a training of another kind; or the last epoch is not saved.
    """

    def __init__(
        self,
        cfg: Config,
        flag: str,
        plan: dict[str, Any],
        lengths: dict[str, str],
        resume: bool = False,
        of_last: tuple[str, ...] = (),
    ) -> None:
        check_last_saved(cfg, flag)
        self.work_dir = Path(cfg.work_dir)
        self.resume = resume
        self.plan = plan
        self.stages: dict[str, dict[str, Any]] = {}
        self._lengths = lengths
        self._flag = flag
        self._note = note_of(cfg.work_dir, flag)
        self._read_note(of_last)

    @property
    def begun(self) -> bool:
        """Whether there is a note to resume from."""
        return self._note.is_file()

    def summary(self) -> str:
        """Return what each stage reached, a line for each."""
        lines = []
        for name, stage in self.stages.items():
            shown = {key: stage['metrics'][key] for key in _SHOWN if key in stage['metrics']}
            values = ', '.join(f'{key} {value:.3f}' for key, value in shown.items())
            length = self._lengths.get(name, 'no training')
            lines.append(f'{name:<12} {length:<12} {values}  {stage["checkpoint"]}')
        return '\n'.join(lines)

    def _train(self, name: str, cfg: Config, make_runner: MakeRunner, resume: Resume) -> None:
        if self.resume:
            resume(cfg)
        runner = make_runner(cfg)
        self._write_note()
        last = _LastMetrics()
        runner.register_hook(last, 'LOWEST')
        runner.train()
        # A run that was killed in its last validation is resumed behind its last epoch.
        metrics = runner.val_loop.run() if last.metrics is None else last.metrics
        folder = Path(cfg.work_dir)
        checkpoint = folder / Path((folder / 'last_checkpoint').read_text().strip()).name
        self._finish(name, checkpoint, metrics)

    def _complete(self, name: str) -> bool:
        return name in self.stages and self._checkpoint(name).is_file()

    def _checkpoint(self, name: str) -> Path:
        return self.work_dir / self.stages[name]['checkpoint']

    def _finish(self, name: str, checkpoint: Path, metrics: dict[str, Any]) -> None:
        numbers = {key: float(value) for key, value in metrics.items()}
        self.stages[name] = dict(
            checkpoint=str(checkpoint.relative_to(self.work_dir)), metrics=numbers
        )
        self._write_note()

    def _read_note(self, of_last: tuple[str, ...]) -> None:
        path = self._note
        refuse_other_stages(str(self.work_dir), self._flag if self.resume else None)
        if not path.is_file():
            # A last stage that is resumed would take them for its own.
            other = min(self.work_dir.glob('*.pth'), default=None)
            if other is not None:
                raise ValueError(
                    f'{other}: is of a training without {self._flag}; choose another --work-dir'
                )
            return
        try:
            note = json.loads(path.read_text(encoding='utf-8'))
            plan, self.stages = dict(note['plan']), note['stages']
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f'{path}: cannot be read as the note of a training by {self._flag}; choose another --work-dir'
            ) from None
        if not any(self.work_dir.glob('*.pth')):
            plan.update({key: self.plan[key] for key in of_last})
        # Data may move while a training is interrupted.
        difference = first_difference(*(_without(each, 'data_root') for each in (plan, self.plan)))
        if difference is not None:
            name, before, now = difference
            raise ValueError(
                f'{path}: the training there has {name}={before!r}, now it is {now!r}; go on with the same '
                'flags and settings, or choose another --work-dir'
            )

        moved = first_difference(plan, self.plan)
        if moved is not None:
            name, before, now = moved
            print(
                f'{name}={now!r}: was {before!r} when this training began; it counts from here on'
            )

    def _write_note(self) -> None:
        if is_main_process():
            write_json(self._note, dict(plan=self.plan, stages=self.stages))
        barrier()


def _without(value: Any, key: str) -> Any:
    """Return a nested value without what stands under a key, at any depth."""
    if isinstance(value, dict):
        return {name: _without(each, key) for name, each in value.items() if name != key}
    return [_without(each, key) for each in value] if isinstance(value, list | tuple) else value


class _LastMetrics(Hook):
    """Keeps the metrics of the newest validation."""

    metrics: dict[str, Any] | None = None

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        self.metrics = metrics


def check_last_saved(cfg: Config, flag: str) -> None:
    """Refuse a checkpoint hook that may leave out the last epoch of a stage.

    Raises:
        ValueError: Names the key and its value.
    """
    key, hook = 'default_hooks.checkpoint', (cfg.get('default_hooks') or {}).get('checkpoint', {})
    if hook is not None:
        every = hook.get('interval') == 1 and hook.get('by_epoch', True)
        if hook.get('save_last', True) or (every and not hook.get('save_begin')):
            return
        key, hook = f'{key}.save_last', hook.save_last
    raise ValueError(
        f'{cfg.filename}: {key}={hook!r}: with {flag} each stage goes on from the last epoch of the one '
        'before, which must be saved; leave it out'
    )


def note_of(work_dir: str, flag: str) -> Path:
    """Return the note of a training in stages, whether it is there or not."""
    return Path(work_dir, f'{flag.strip("-").replace("-", "_")}.json')


def refuse_other_stages(work_dir: str, flag: str | None = None) -> None:
    """Refuse a work folder that holds a training in stages, but for one by ``flag``.

    Raises:
        ValueError: Names the note and the flag that goes on with it.
    """
    for other in FLAGS:
        note = note_of(work_dir, other)
        if other != flag and note.is_file():
            raise ValueError(
                f'{note}: this work folder holds a training by {other}; go on with it by {other} --resume, '
                'or choose another --work-dir'
            )


def name_visualizer(cfg: Config, name: str) -> None:
    """Give the visualizer of a stage a name of its own."""
    # MMEngine hands out the same visualizer, with its folder, for the same name.
    if cfg.get('visualizer') is not None:
        cfg.visualizer.name = f'{cfg.visualizer.get("name", "visualizer")}_{name}'
