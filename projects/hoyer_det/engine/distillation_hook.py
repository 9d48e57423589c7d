"""Lets a spiking detector learn from the answers of a trained teacher as well."""

from typing import Any

import torch
from mmdet.registry import HOOKS, MODELS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn import functional

from ..twins import make_twin
from ..weights.reading import read_checkpoint


@HOOKS.register_module()
class DistillationHook(Hook):
    r"""Adds ``loss_distill`` to the losses of the detector that is trained.

    With the teacher's probabilities :math:`p`, the student's :math:`q`, and :math:`f` the teacher's
    probability that an anchor is any object, over all anchors of the batch:

    .. math:: \mathrm{weight} \cdot
              \frac{\sum \mathrm{KL}(p \| q) + \sum f \, \mathrm{smooth}_{L1}(b_p - b_q)}
                   {\max(\sum f, N)}

    with the box deltas :math:`b` and :math:`N` images. Of a head with a sigmoid for each class, KL is
    summed over classes and :math:`f` is the largest probability. The teacher sees the same images, in
    evaluation mode and without gradients. It is no part of the model, so neither checkpoints nor
    evaluation know of it; that is why this is a hook and no detector around the detector.

    For single-stage detectors whose head returns class scores and box deltas for each level, as
    those of SSD and RetinaNet.

    Args:
        checkpoint: The teacher's weights.
        teacher: The teacher's model config; by default that of the ReLU twin of the run's config.
        weight: Weight of the term.

    Raises:
        ValueError: If the weight is not positive, the weights are not the teacher's, or the model has
            another kind of head.
    """

    def __init__(
        self, checkpoint: str, teacher: dict[str, Any] | None = None, weight: float = 1.0
    ) -> None:
        if not weight > 0:
            raise ValueError(f'DistillationHook: weight must be positive, got {weight}')
        self.checkpoint = checkpoint
        self.teacher_cfg = teacher
        self.weight = weight
        self._student: Any = None
        self._images: Tensor | None = None
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Build the teacher and start to listen to the forward calls of the model."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        cfg = self.teacher_cfg or make_twin(runner.cfg, 'relu').model
        self._teacher = self._build(cfg).to(next(model.parameters()).device)
        for detector in (model, self._teacher):
            if not hasattr(detector, 'bbox_head'):
                raise ValueError(
                    f'DistillationHook: {type(detector).__name__} has no bbox_head; only single-stage '
                    'detectors can be distilled'
                )
        self._handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.bbox_head.register_forward_hook(self._remember),
            model.register_forward_hook(self._end, with_kwargs=True),
        ]

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()

    def _build(self, cfg: dict[str, Any]) -> nn.Module:
        teacher = revert_sync_batchnorm(MODELS.build(cfg))
        weights = read_checkpoint(self.checkpoint).weights
        own = teacher.state_dict()
        wrong = [n for n, t in own.items() if n not in weights or weights[n].shape != t.shape]
        if wrong:
            raise ValueError(
                f'DistillationHook: {self.checkpoint} does not hold the weights of the teacher: '
                f'{len(wrong)} are missing or of another shape (first: {wrong[0]})'
            )
        teacher.load_state_dict({name: weights[name] for name in own})
        return teacher.eval().requires_grad_(False)

    def _begin(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        self._student = None
        learning = model.training and kwargs.get('mode') == 'loss' and torch.is_grad_enabled()
        self._images = (args[0] if args else kwargs['inputs']) if learning else None

    def _remember(self, head: nn.Module, args: tuple, output: Any) -> None:
        self._student = output

    def _end(self, model: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        images, student = self._images, self._student
        self._images = self._student = None
        if images is None or student is None:
            return
        with torch.no_grad():
            answers = self._teacher.bbox_head(self._teacher.extract_feat(images))
        head = model.bbox_head
        classes = getattr(head, 'cls_out_channels', None)
        if classes is None or any(
            not isinstance(a, tuple) or len(a) < 2 for a in (student, answers)
        ):
            raise ValueError(
                f'DistillationHook: {type(head).__name__} does not return class scores and box deltas '
                'for each level'
            )
        term = distillation(student, answers, classes, getattr(head, 'use_sigmoid_cls', False))
        output['loss_distill'] = self.weight * term


def distillation(
    student: tuple[Any, ...], teacher: tuple[Any, ...], classes: int, sigmoid: bool
) -> Tensor:
    """Return how far a head's answers are from those of a teacher.

    Args:
        student: Class scores and box deltas, each a list of levels (N, A * channels, H, W).
        teacher: The same of the teacher.
        classes: Channels of an anchor's class scores; with a softmax the last is the background.
        sigmoid: Whether each class has a probability of its own.

    Returns:
        The term of :class:`DistillationHook` without its weight, a scalar.
    """
    logits, deltas = _by_anchor(student[0], classes), _by_anchor(student[1], 4)
    wanted, boxes = _by_anchor(teacher[0], classes), _by_anchor(teacher[1], 4)
    if sigmoid:
        probability = wanted.sigmoid()
        cross = functional.binary_cross_entropy_with_logits(logits, probability, reduction='sum')
        least = functional.binary_cross_entropy_with_logits(wanted, probability, reduction='sum')
        divergence = cross - least
        foreground = probability.amax(1)
    else:
        probability = wanted.softmax(1)
        divergence = functional.kl_div(logits.log_softmax(1), probability, reduction='sum')
        foreground = 1 - probability[:, -1]
    apart = functional.smooth_l1_loss(deltas, boxes, reduction='none').sum(1)
    images = student[0][0].size(0)
    return (divergence + (foreground * apart).sum()) / foreground.sum().clamp(min=images)


def _by_anchor(levels: list[Tensor], channels: int) -> Tensor:
    """Return what all levels say as (anchors of all images, channels), in at least float32."""
    return torch.cat([x.float().permute(0, 2, 3, 1).reshape(-1, channels) for x in levels])
