"""What exported files say about themselves, whole or not."""

import json
import sys

import onnx
import pytest
from hoyer_det_runtime.description import KEY, read_description
from onnx_layers import Builder

INPUT = dict(size=[8, 8], channels='rgb', scale=[8, 8], keep_ratio=False, pad=0)
OUTPUT = dict(
    **dict(score_thr=0.1, nms_pre=-1, levels=[1], clip=True, min_bbox_size=-1),
    **dict(nms_iou=0.5, nms_class_agnostic=False, max_per_img=9),
)
WHOLE = dict(format=1, classes=['a'], input=INPUT, output=OUTPUT)


def save(description, path):
    net = Builder()
    net.stem()
    model = net.model()
    onnx.helper.set_model_props(model, {KEY: json.dumps(description)})
    onnx.save(model, path)
    return path


def test_a_whole_description(tmp_path):
    assert read_description(save(WHOLE, tmp_path / 'a.onnx')) == WHOLE


@pytest.mark.parametrize(
    'change, missing',
    [
        (dict(classes={}), 'classes'),
        (dict(input={k: v for k, v in INPUT.items() if k != 'pad'}), 'input.pad'),
        (dict(output={k: v for k, v in OUTPUT.items() if k != 'nms_iou'}), 'output.nms_iou'),
        (dict(input=[]), 'input.size, input.channels'),
        (dict(output=None), 'output.score_thr, output.nms_pre'),
    ],
)
def test_what_is_missing_is_said(change, missing, tmp_path):
    path = save({**WHOLE, **change}, tmp_path / 'a.onnx')
    with pytest.raises(ValueError, match=f'a.onnx: its description has no {missing}.*export it'):
        read_description(path)


def test_missing_package_is_named(tmp_path, monkeypatch):
    path = save(WHOLE, tmp_path / 'a.onnx')
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(ValueError, match=r'a\.onnx: needs the package onnx .*; pip install onnx'):
        read_description(path)
