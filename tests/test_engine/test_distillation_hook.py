"""DistillationHook: the term, what learns from it, and what it refuses."""

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.engine import DistillationHook
from hoyer_det.engine.distillation_hook import _difference, distillation, incomparable
from hoyer_det.spiking import spiking_layers
from hoyer_det.twins import make_twin
from mmdet.models.dense_heads import SSDHead, YOLOV3Head
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from narrow import narrow_model
from tiny_ssd import Watch, build_ssd, train
from torch import nn


def answers(seed: int, classes: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    sizes = ((4, 2), (2, 3))  # side, anchors
    scores = [torch.randn(2, a * classes, s, s, generator=draw) for s, a in sizes]
    deltas = [torch.randn(2, a * 4, s, s, generator=draw) for s, a in sizes]
    return scores, deltas


@pytest.mark.parametrize('sigmoid', [False, True])
def test_term_by_its_definition(sigmoid):
    student, teacher = answers(0, 3), answers(1, 3)
    total = seen = 0.0
    for q, p, b, t in zip(*student[:1], *teacher[:1], student[1], teacher[1], strict=True):
        for image in range(2):
            for anchor in range(q.size(1) // 3):
                for y in range(q.size(2)):
                    for x in range(q.size(3)):
                        classes, box = (
                            slice(3 * anchor, 3 * anchor + 3),
                            slice(4 * anchor, 4 * anchor + 4),
                        )
                        own, other = q[image, classes, y, x], p[image, classes, y, x]
                        if sigmoid:
                            q_, p_ = own.sigmoid(), other.sigmoid()
                            kl = p_ * (p_ / q_).log() + (1 - p_) * ((1 - p_) / (1 - q_)).log()
                            f = p_.max()
                        else:
                            q_, p_ = own.softmax(0), other.softmax(0)
                            kl, f = p_ * (p_ / q_).log(), p_[:2].sum()
                        apart = (b[image, box, y, x] - t[image, box, y, x]).abs()
                        huber = torch.where(apart < 1, apart**2 / 2, apart - 0.5).sum()
                        total, seen = total + kl.sum() + f * huber, seen + f
    wanted = total / max(seen, 2)
    torch.testing.assert_close(distillation(student, teacher, 3, sigmoid), wanted)
    assert distillation(teacher, teacher, 3, sigmoid).abs() < 1e-5


def teacher_file(tmp_path, **change) -> tuple[str, nn.Module]:
    teacher = build_ssd('ReLU')
    with torch.no_grad():
        for p in teacher.bbox_head.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(5)))
    file = str(tmp_path / 'teacher.pth')
    torch.save(dict(state_dict={**teacher.state_dict(), **change}, meta={}), file)
    return file, teacher


def run(tmp_path, monkeypatch, checkpoint, **settings):
    model, watch = build_ssd(), Watch()
    names = set(model.state_dict())
    # A Runner around a built model has no config of it; the teacher's is given.
    registry = SimpleNamespace(build=lambda cfg: build_ssd('ReLU'))
    monkeypatch.setattr('hoyer_det.engine.distillation_hook.MODELS', registry)
    hook = DistillationHook(checkpoint, teacher=dict(type='built above'), **settings)
    train(model, [hook, watch], tmp_path / 'run', iters=2)
    assert set(model.state_dict()) == names
    return model, hook, watch


def test_student_learns_from_a_teacher_that_stays_as_it_is(tmp_path, monkeypatch):
    file, teacher = teacher_file(tmp_path)
    before = copy.deepcopy(teacher.state_dict())
    model, hook, watch = run(tmp_path, monkeypatch, file, weight=2.0)
    assert all(log['loss_distill'] > 0 for log in watch.logs)
    assert watch.logs[0]['loss'] > watch.logs[0]['loss_distill']
    for name, value in hook._teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not hook._teacher.training
    # Nothing listens any more.
    assert not model._forward_hooks and not model.bbox_head._forward_hooks


@pytest.mark.parametrize('kind', [None, 'onebit', 'level'])
def test_relu_twin_teaches_the_twins_that_have_neurons_too(kind, tmp_path):
    cfg = load_config(CONFIGS / 'hoyer_ssd_shapes.py', complete=False)
    narrow_model(cfg)  # narrows the config
    teacher = MODELS.build(make_twin(cfg, 'relu').model)
    file = str(tmp_path / 'teacher.pth')
    torch.save(dict(state_dict=teacher.state_dict(), meta={}), file)
    cfg.custom_hooks = [dict(type='DistillationHook', checkpoint=file)]
    trained = make_twin(cfg, kind) if kind else cfg
    watch = Watch()
    model = MODELS.build(trained.model)
    train(model, [*trained.custom_hooks, watch], tmp_path / 'run', iters=2, cfg=trained)
    assert len(watch.logs) == 2 and all(log['loss_distill'] > 0 for log in watch.logs)
    levels = {layer.extremum for layer in spiking_layers(model).values()}
    assert levels == {'fixed' if kind else 'channel'}


def test_other_weights_are_refused(tmp_path, monkeypatch):
    file, _ = teacher_file(tmp_path, **{'bbox_head.cls_convs.0.0.bias': torch.zeros(1)})
    with pytest.raises(ValueError, match='belong to the teacher of DistillationHook: 1 of another'):
        run(tmp_path, monkeypatch, file)


def test_weight_must_be_positive():
    with pytest.raises(ValueError, match='weight must be positive'):
        DistillationHook('file.pth', weight=0.0)


def test_yolo_by_its_definition():
    draw = torch.Generator().manual_seed(2)
    head = YOLOV3Head(num_classes=2, in_channels=[4] * 3, out_channels=[4] * 3)
    student, teacher = (
        ([torch.randn(2, 2 * 7, side, side, generator=draw) for side in (3, 1)],) for _ in range(2)
    )
    total = seen = 0.0
    for own, other in zip(student[0], teacher[0], strict=True):
        for image, y, x, first in itertools.product(range(2), *map(range, own.shape[2:]), (0, 7)):
            s, t = (maps[image, first : first + 7, y, x] for maps in (own, other))
            q, p = s.sigmoid(), t.sigmoid()
            kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
            apart = torch.cat([q[:2] - p[:2], s[2:4] - t[2:4]]).abs()
            huber = torch.where(apart < 1, apart**2 / 2, apart - 0.5).sum()
            total, seen = total + kl[4] + p[4] * (kl[5:].sum() + huber), seen + p[4]
    torch.testing.assert_close(_difference(head, student, teacher), total / max(seen, 2))
    assert _difference(head, student, student).abs() < 1e-5


def test_answers_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match='same classes, anchors and strides'):
        _difference(SimpleNamespace(cls_out_channels=3), answers(0, 3), answers(1, 4))


def head(kind: str, **settings) -> nn.Module:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    common = dict(num_classes=2, in_channels=8, feat_channels=8, stacked_convs=1)
    return MODELS.build(dict(type=kind, **common, **settings)).eval()


def point_head(kind: str, **settings) -> nn.Module:
    ranges = ((-1, 64), (64, 1e8))
    return head(kind, strides=(8, 16), regress_ranges=ranges, norm_cfg=None, **settings)


def anchor_head(kind: str, **settings) -> nn.Module:
    anchors = dict(type='AnchorGenerator', ratios=[1.0], scales=[8], strides=[8, 16])
    return head(kind, anchor_generator=anchors, **settings)


QUALITY = dict(type='QualityFocalLoss', use_sigmoid=True)
LEVELS = dict(
    anchor_generator=dict(
        type='YOLOAnchorGenerator', base_sizes=[[(9, 9)], [(5, 5)]], strides=[16, 8]
    ),
    featmap_strides=(16, 8),
)


@pytest.mark.parametrize(
    ('build', 'reason'),
    [
        (lambda: point_head('FCOSHead'), None),
        (lambda: anchor_head('RetinaHead'), None),
        (lambda: anchor_head('ATSSHead', norm_cfg=None), None),
        (lambda: head('YOLOXHead', strides=(8, 16)), None),
        (lambda: YOLOV3Head(2, in_channels=[8] * 2, out_channels=[8] * 2, **LEVELS).eval(), None),
        (lambda: point_head('FCOSHead', norm_on_bbox=True), 'other scores or boxes in training'),
        (lambda: point_head('VFNetHead'), 'other scores or boxes in training'),
        (
            lambda: anchor_head('GFLHead', loss_cls=QUALITY, norm_cfg=None),
            'does not return 4 numbers',
        ),
        (lambda: nn.Identity().eval(), 'does not return class scores and boxes'),
    ],
)
def test_heads_that_can_be_compared(build, reason):
    asked = build()
    features = tuple(torch.rand(2, 8, side, side) for side in (8, 4))
    before = copy.deepcopy(asked.state_dict())
    found = incomparable(asked, features)
    assert found is None if reason is None else reason in found
    assert not any(module.training for module in asked.modules())
    assert all(torch.equal(value, before[name]) for name, value in asked.state_dict().items())


def test_teacher_that_answers_otherwise_than_it_was_taught_is_refused(tmp_path, monkeypatch):
    class Scaled(SSDHead):
        def forward(self, features):
            scores, boxes = super().forward(features)
            return scores, boxes if self.training else [8 * box for box in boxes]

    file, _ = teacher_file(tmp_path)

    def build(cfg):
        teacher = build_ssd('ReLU')
        teacher.bbox_head.__class__ = Scaled
        return teacher

    registry = SimpleNamespace(build=build)
    monkeypatch.setattr('hoyer_det.engine.distillation_hook.MODELS', registry)
    hook = DistillationHook(file, teacher=dict(type='built above'))
    with pytest.raises(ValueError, match='Scaled returns other scores .* remove the hook'):
        train(build_ssd(), [hook], tmp_path / 'run')
