"""Puts ``HoyerResNet`` into a shipped config and tries loss, backward and prediction."""

import copy
import inspect
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mmdet
import numpy as np
import torch
from hoyer_det.backbones import HoyerResNet
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, TrackDataSample
from mmdet.testing import demo_mm_inputs, demo_mm_proposals, demo_track_inputs
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from .families import Family

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
SIDE = 128  # pixels; the coarsest level of the usual pyramids is then one cell

_TOO = "with MMDetection's own ResNet, too: "
_PREDICTIONS = ('pred_instances', 'pred_panoptic_seg', 'pred_track_instances')
_ARGUMENTS = set(inspect.signature(HoyerResNet.__init__).parameters)
# What a random image needs not: boxes drawn and kept, and wide fully connected layers.
_FEW = dict(num=32, max_per_img=30, nms_pre=100, fc_out_channels=128)
# What pre-trained weights ask for, and weights from a random start do not.
_FROM_SCRATCH = dict(frozen_stages=-1, norm_eval=False, init_cfg=None)


class _Refused(ValueError):
    """A check of this module failed."""


@dataclass
class Result:
    """What came of one family.

    Attributes:
        family: The family.
        reason: Why it does not work, '' where it does.
        unused_maps: Stages whose feature map the neck leaves aside, ascending.
        seconds: Duration.
    """

    family: Family
    reason: str = ''
    unused_maps: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def works(self) -> bool:
        """Whether all of it went through."""
        return not self.reason


def shipped_model(family: Family) -> ConfigDict:
    """Return the ``model`` of a family's shipped config, without what it would download.

    Augmentations of whole batches go, because they bring every image to the size of the original
    recipe; the family's own ``changes`` are merged in.
    """
    cfg = Config.fromfile(CONFIGS / family.name / family.config)
    teacher = cfg.model.get('teacher_config')
    if teacher is not None:  # a path inside MMDetection's repository
        teacher = Config.fromfile(CONFIGS / teacher.removeprefix('configs/'))
        cfg.model.teacher_config = dict(model=teacher.model)
    for node in _dicts(cfg.model):
        init = node.get('init_cfg')
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            node['init_cfg'] = None
        for key in ('pretrained', 'batch_augments', 'teacher_ckpt'):
            if node.get(key) is not None:
                node[key] = None
        for key, most in _FEW.items():
            if isinstance(node.get(key), int):
                node[key] = min(node[key], most)
    if family.changes:
        cfg.merge_from_dict({f'model.{key}': value for key, value in family.changes.items()})
    return cfg.model


def put_hoyer_resnet_in(model: ConfigDict) -> None:
    """Replace the ``ResNet`` of every ``backbone`` in the config of a model by ``HoyerResNet``.

    Depth, channels, strides and stages stay. All of it is trained, as there are no weights to freeze.

    Args:
        model: Config of the model, changed in place.

    Raises:
        ValueError: If the config holds no ``ResNet`` backbone, or one with something that
            ``HoyerResNet`` does not have.
    """
    found = False
    for node in list(_dicts(model)):
        backbone = node.get('backbone')
        if not isinstance(backbone, dict) or backbone.get('type') != 'ResNet':
            continue
        found = True
        kept = {key: value for key, value in backbone.items() if key in _ARGUMENTS}
        more = sorted(k for k in set(backbone) - _ARGUMENTS - {'type', 'pretrained'} if backbone[k])
        if more:
            raise _Refused(
                f'what it adds is in the blocks of its ResNet ({", ".join(more)}), which HoyerResNet '
                'does not have'
            )
        kept.update(_FROM_SCRATCH, type='HoyerResNet')
        if 'norm_cfg' in kept:
            kept['norm_cfg'] = dict(kept['norm_cfg'], requires_grad=True)
        node['backbone'] = ConfigDict(kept)
    if not found:
        raise _Refused('the config has no ResNet backbone')


def demo_batch(family: Family, model: ConfigDict) -> dict[str, Any]:
    """Return two random images, annotated with all that the family needs, as a loader does."""
    shape = (3, SIDE, SIDE)
    counts = [node.get('num_classes') for node in _dicts(model)]
    classes = min([10, *(count for count in counts if isinstance(count, int))])
    if 'video' in family.needs:
        return demo_track_inputs(
            batch_size=1,
            num_frames=2,
            key_frames_inds=[0],
            image_shapes=shape,
            num_items=[4],
            num_classes=classes,
            with_mask='masks' in family.needs,
        )
    np.random.seed(0)
    if 'unlabelled' in family.needs:
        return _semi_supervised(shape)
    batch = demo_mm_inputs(
        batch_size=2,
        image_shapes=[shape, shape],
        num_items=[4, 3],
        num_classes=10,
        with_mask='masks' in family.needs,
        with_semantic='semantic' in family.needs,
        sem_seg_output_strides=1,
    )
    for sample in batch['data_samples']:
        sample.gt_instances.labels %= classes  # the helper leaves out class 0
        sample.set_metainfo(dict(batch_input_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0)))
        if 'proposals' in family.needs:
            (sample.proposals,) = demo_mm_proposals([shape], 50)
    return batch


def _semi_supervised(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return a batch with labels, and one without as teacher and student see it."""
    branches = {
        name: demo_mm_inputs(batch_size=2, image_shapes=[shape, shape], num_items=[4, 3])
        for name in ('sup', 'unsup_teacher', 'unsup_student')
    }
    for branch in branches.values():
        for sample in branch['data_samples']:
            sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
    return {
        key: {name: branch[key] for name, branch in branches.items()}
        for key in ('inputs', 'data_samples')
    }


def try_family(family: Family) -> Result:
    """Try loss, backward and prediction.

    Args:
        family: A family without ``same_as``.

    Returns:
        The result; an error of any kind becomes its ``reason``.
    """
    start = time.perf_counter()
    result = Result(family, reason=family.reason)
    if result.reason:
        return result
    try:
        with _quiet():
            _try(family, result)
    except Exception as error:
        result.reason = _one_line(error)
    result.seconds = time.perf_counter() - start
    return result


def _try(family: Family, result: Result) -> None:
    init_default_scope('mmdet')
    cfg = shipped_model(family)
    batch = demo_batch(family, cfg)
    spiking = copy.deepcopy(cfg)
    put_hoyer_resnet_in(spiking)
    try:
        reference = _train_step(cfg, batch)
    except Exception as error:
        raise _Refused(_TOO + _one_line(error)) from error
    model = _train_step(spiking, batch)
    expected, missing = _without_gradient(reference), _without_gradient(model)
    if missing != expected:
        names = ', '.join(sorted(missing ^ expected)[:3])
        raise _Refused(f'gradients arrive at other parameters than with ResNet: {names}')
    result.unused_maps = _unused_maps(model)
    if 'unlabelled' in family.needs:
        batch = {key: value['sup'] for key, value in batch.items()}
    try:
        _predict(model, batch)
    except Exception as error:
        try:
            _predict(reference, batch)
        except Exception as other:
            raise _Refused(_TOO + _one_line(other)) from error
        raise


def _predict(model: nn.Module, batch: dict[str, Any]) -> None:
    """Predict image by image, as MMDetection tests; guided anchoring takes no more at once."""
    model.eval()
    for image in range(len(batch['inputs'])):
        one = {key: copy.deepcopy(value[image : image + 1]) for key, value in batch.items()}
        samples = model.test_step(one)
        if len(samples) != 1 or not _predicts(samples[0]):
            raise _Refused(f'{len(samples)} samples for an image, or one without a prediction')


def _train_step(cfg: ConfigDict, batch: dict[str, Any]) -> nn.Module:
    """Build a model and run one forward and backward pass; losses and gradients must be finite."""
    torch.manual_seed(0)
    np.random.seed(0)
    MessageHub.get_current_instance().update_info_dict(dict(epoch=0, iter=0))  # some heads ask it
    model = MODELS.build(copy.deepcopy(cfg))  # some detectors write into their config
    model = revert_sync_batchnorm(model)  # as the Runner does outside of distributed runs
    model.init_weights()
    model.train()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    losses = model(**data, mode='loss')
    total, _ = model.parse_losses(losses)
    if not total.isfinite():
        raise _Refused(f'the loss is {total.item()}')
    total.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise _Refused(f'{name}: the gradient is not finite')
    return model


def _without_gradient(model: nn.Module) -> set[str]:
    """Return the trained parameters outside of backbones at which no gradient arrived."""
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None and 'backbone' not in name.split('.')
    }


def _unused_maps(model: nn.Module) -> list[int]:
    """Return which feature maps of the spiking backbones nothing reads.

    Raises:
        _Refused: If a parameter before a map that is read has no gradient.
    """
    unused: set[int] = set()
    for backbone in (m for m in model.modules() if isinstance(m, HoyerResNet)):
        trained = [p for p in backbone.parameters() if p.requires_grad]
        if not trained:
            continue  # that of a teacher
        for index, output in zip(backbone.out_indices, backbone.outputs, strict=True):
            if all(p.grad is None for p in output.parameters()):
                unused.add(index)
        for name, parameter in backbone.named_parameters():
            place = name.split('.')
            map_unused = place[0] == 'outputs' and backbone.out_indices[int(place[1])] in unused
            if parameter.grad is None and not map_unused:
                raise _Refused(f'backbone.{name}: no gradient')
    return sorted(unused)


def _predicts(sample: DetDataSample | TrackDataSample) -> bool:
    frames = sample.video_data_samples if isinstance(sample, TrackDataSample) else [sample]
    return all(any(key in frame for key in _PREDICTIONS) for frame in frames)


def _dicts(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every dict in a config, outer ones first."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _dicts(value)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _dicts(item)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the log: ``init_weights`` writes several lines for every parameter."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _one_line(error: Exception) -> str:
    """Return the reason in an error, with its kind unless it was raised here."""
    text = ' '.join(str(error).split())
    return text if isinstance(error, _Refused) else f'{type(error).__name__}: {text}'
