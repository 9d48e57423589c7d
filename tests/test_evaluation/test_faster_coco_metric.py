import sys

import pytest
import torch
from hoyer_det.evaluation import FasterCocoMetric
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS

ITEMS = ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l']
ITEMS += ['AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000']
CLASSES = ('cell', 'dot', 'ring')


def evaluate(metric_type: str, shift: float = 3.0) -> dict[str, float]:
    """Twelve numbers of detections that are moved, doubled, missed and invented at random."""
    metric = METRICS.build(dict(type=metric_type, metric='bbox', metric_items=ITEMS))
    metric.dataset_meta = dict(classes=CLASSES)
    draw = torch.Generator().manual_seed(0)
    for image in range(12):
        corners = torch.rand(6, 2, generator=draw) * 300
        sides = torch.rand(6, 2, generator=draw) ** 2 * 250 + 8  # small, medium and large
        boxes = torch.cat([corners, corners + sides], 1)
        labels = torch.randint(3, (6,), generator=draw)
        instances = [
            dict(bbox=box.tolist(), bbox_label=int(label), ignore_flag=int(index == 5))
            for index, (box, label) in enumerate(zip(boxes, labels, strict=True))
        ]
        moved = boxes.repeat(2, 1) + shift * torch.randn(12, 4, generator=draw)
        found = torch.cat([moved[1:], torch.tensor([[5.0, 5, 40, 40]])])
        kinds = torch.cat([labels.repeat(2)[1:], torch.tensor([0])])
        scores = torch.rand(len(found), generator=draw)
        sample = dict(
            img_id=image,
            ori_shape=(600, 600),
            instances=instances,
            pred_instances=dict(bboxes=found, scores=scores, labels=kinds),
        )
        metric.process({}, [sample])
    return metric.evaluate(size=12)


def test_both_evaluations_give_the_same_twelve_numbers():
    pytest.importorskip('faster_coco_eval')
    slow, fast = evaluate('CocoMetric'), evaluate('FasterCocoMetric')
    assert len(slow) == 12
    assert fast == slow
    assert len(set(slow.values())) > 6 and all(0 < value < 1 for value in slow.values())
    assert evaluate('FasterCocoMetric', shift=9.0) != fast


def test_the_evaluation_of_faster_coco_eval_is_the_one_that_runs(monkeypatch):
    package = pytest.importorskip('faster_coco_eval')
    monkeypatch.setattr(package.COCOeval_faster, 'evaluate', lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate('FasterCocoMetric')
    assert evaluate('CocoMetric')  # and the other one is itself again


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    with pytest.raises(ImportError, match='fast-eval'):
        FasterCocoMetric(metric='bbox')


def test_a_second_kind_of_parallelism_is_refused():
    pytest.importorskip('faster_coco_eval')
    with pytest.raises(ValueError, match='use_mp_eval must be False'):
        FasterCocoMetric(metric='bbox', use_mp_eval=True)


def test_it_is_a_coco_metric():
    assert issubclass(FasterCocoMetric, CocoMetric)
