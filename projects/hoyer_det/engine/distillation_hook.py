"""Lets a spiking detector learn from the answers of a trained teacher as well."""

from typing import Any

import torch
from mmdet.models.dense_heads import DETRHead, YOLOV3Head
from mmdet.registry import HOOKS, MODELS
from mmengine.hooks import Hook
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn import functional

from ..twins import relu_model
from ..weights.reading import read_checkpoint
from .checkpoint import check_fit
from .runner_parts import detector


@HOOKS.register_module()
class DistillationHook(Hook):
    r"""Adds ``loss_distill`` to the losses of the detector that is trained.

    With the teacher's probabilities :math:`p`, the student's :math:`q`, and :math:`f` the teacher's
    probability that an anchor is any object, over all anchors of the batch:

    .. math:: \mathrm{weight} \cdot
              \frac{\sum \mathrm{KL}(p \| q) + \sum f \, \mathrm{smooth}_{L1}(b_p - b_q)}
                   {\max(\sum f, N)}

    with the box deltas :math:`b` and :math:`N` images. Of a head with a sigmoid for each class, KL is
    summed over classes and :math:`f` is the largest probability; in YOLOv3 :math:`f` is the objectness,
    and KL that of the objectness plus :math:`f` times that of the classes. The teacher
    sees the same images, in evaluation mode and without gradients. It is no part of the model, so neither
    checkpoints nor evaluation know of it; that is why this is a hook and no detector around the detector.

    For YOLOv3, and for single-stage detectors whose head returns class scores and boxes of 4 numbers for
    each level, the same in training as in evaluation: those of SSD, RetinaNet, ATSS, YOLOX and FCOS, but
    not FCOS with ``norm_on_bbox`` and VFNet, whose boxes differ, and GFL, whose boxes are distributions.
    See :func:`incomparable`, which the teacher's head is asked in the first iteration.

    Args:
        checkpoint: The teacher's weights.
        teacher: The teacher's model config; by default that of the ReLU twin of the run's config, also
            where the run is the onebit or level twin.
        weight: Weight of the term.

    Raises:
        ValueError: If the weight is not positive, the weights are not the teacher's, it has another kind
            of head, or its answers are of another shape.
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
        model = detector(runner)
        cfg = self.teacher_cfg or relu_model(runner.cfg)
        self._teacher = self._build(cfg).to(next(model.parameters()).device)
        self._checked = False
        for network in (model, self._teacher):
            if not hasattr(network, 'bbox_head'):
                raise ValueError(
                    f'DistillationHook: {type(network).__name__} has no bbox_head; only single-stage '
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
        checkpoint = read_checkpoint(self.checkpoint)
        check_fit(checkpoint, teacher, 'the teacher of DistillationHook')
        teacher.load_state_dict(checkpoint.weights)
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
        head = self._teacher.bbox_head
        with torch.no_grad():
            features = self._teacher.extract_feat(images)
            if not self._checked:
                _check(head, features)
                self._checked = True
            answers = head(features)
        output['loss_distill'] = self.weight * _difference(head, student, answers)


def incomparable(head: nn.Module, features: Any) -> str | None:
    """Tell why the answers of a head in training cannot be compared with those of a teacher in evaluation.

    Args:
        head: Head of a detector in evaluation mode.
        features: What the head is to answer.

    Returns:
        What the head does, as the end of a sentence; None if its answers can be compared.
    """
    yolo = isinstance(head, YOLOV3Head)
    classes = getattr(head, 'cls_out_channels', None)
    other = 'does not return class scores and boxes for each level'
    if not yolo and (classes is None or isinstance(head, DETRHead)):
        return other
    mode, answers = head.training, []
    try:
        for training in (True, False):
            head.training = training  # of the head alone: norms and dropouts inside do differ
            with torch.no_grad():
                answers.append(head(features)[: 1 if yolo else 2])
    finally:
        head.training = mode
    in_training, in_evaluation = ([x for part in answer for x in part] for answer in answers)
    if not all(isinstance(x, Tensor) for x in in_training + in_evaluation):
        return other
    if len(in_training) != len(in_evaluation) or not all(
        x.shape == y.shape and torch.allclose(x, y, rtol=1e-3, atol=1e-5, equal_nan=True)
        for x, y in zip(in_training, in_evaluation, strict=True)
    ):
        return 'returns other scores or boxes in training than in evaluation'
    if not yolo and any(
        4 * scores.size(1) != boxes.size(1) * classes
        for scores, boxes in zip(*answers[0], strict=True)
    ):
        return 'does not return 4 numbers for a box'
    return None


def _check(head: nn.Module, features: Any) -> None:
    reason = incomparable(head, features)
    if reason is not None:
        raise ValueError(
            f'DistillationHook: {type(head).__name__} {reason}; remove the hook from custom_hooks, or add '
            '--no-teacher to --from-twin'
        )


def _difference(head: nn.Module, student: Any, teacher: Any) -> Tensor:
    """Compare the answers of the student with those of the teacher, whose head is given."""
    yolo = isinstance(head, YOLOV3Head)
    used = 1 if yolo else 2
    shapes = [[tuple(x.shape) for part in a[:used] for x in part] for a in (student, teacher)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f'DistillationHook: the answers are of shapes {shapes[0]}, those of the teacher of '
            f'{shapes[1]}; both need the same classes, anchors and strides'
        )
    if yolo:
        return yolo_distillation(student[0], teacher[0], head.num_attrib)
    sigmoid = getattr(head, 'use_sigmoid_cls', False)
    return distillation(student, teacher, head.cls_out_channels, sigmoid)


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
        divergence = _binary_divergence(logits, wanted).sum()
        foreground = wanted.sigmoid().amax(1)
    else:
        probability = wanted.softmax(1)
        divergence = functional.kl_div(logits.log_softmax(1), probability, reduction='sum')
        foreground = 1 - probability[:, -1]
    apart = functional.smooth_l1_loss(deltas, boxes, reduction='none').sum(1)
    images = student[0][0].size(0)
    return (divergence + (foreground * apart).sum()) / foreground.sum().clamp(min=images)


def yolo_distillation(student: list[Tensor], teacher: list[Tensor], entries: int) -> Tensor:
    """As :func:`distillation`, for the maps of YOLOv3.

    Args:
        student: A level is (N, A * entries, H, W): x, y, width, height, objectness, classes.
        teacher: The same of the teacher.
        entries: Entries of an anchor.
    """
    found, wanted = _by_anchor(student, entries), _by_anchor(teacher, entries)
    foreground = wanted[:, 4].sigmoid()
    divergence = _binary_divergence(found[:, 4:], wanted[:, 4:])
    # What the teacher thinks of the class where it sees no object is chance.
    weighted = divergence[:, 0] + foreground * divergence[:, 1:].sum(1)
    boxes = (torch.cat([x[:, :2].sigmoid(), x[:, 2:4]], 1) for x in (found, wanted))
    apart = functional.smooth_l1_loss(*boxes, reduction='none').sum(1)
    images = student[0].size(0)
    return (weighted + foreground * apart).sum() / foreground.sum().clamp(min=images)


def _binary_divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return KL of the probabilities of each entry by itself, from the logits of both."""
    probability = wanted.sigmoid()
    cross = functional.binary_cross_entropy_with_logits
    return cross(logits, probability, reduction='none') - cross(
        wanted, probability, reduction='none'
    )


def _by_anchor(levels: list[Tensor], channels: int) -> Tensor:
    """Return what all levels say as (anchors of all images, channels), in at least float32."""
    return torch.cat([x.float().permute(0, 2, 3, 1).reshape(-1, channels) for x in levels])
