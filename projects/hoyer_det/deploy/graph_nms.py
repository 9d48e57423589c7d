"""Ends an exported graph with ONNX's NMS."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def add_nms(model: onnx.ModelProto, spec: dict[str, Any]) -> None:
    """Add an output ``detections``, float32 (K, 7), behind ``boxes`` and ``scores``, in place.

    A row is image, label, score, left, top, right, bottom, the last four in pixels of the padded input.
    Rows are sorted by score within an image and class alone. The best ``max_per_img`` of each class
    remain, not of the image; the number of candidates of a level is not limited. Where NMS looks at no class,
    a prior has its best class alone, and rows are sorted and limited within the image.

    Args:
        model: Graph with ``boxes`` (N, P, 4) and ``scores`` (N, P, classes).
        spec: The entry ``output`` of the description.

    Raises:
        ValueError: If it leaves out small boxes, whose size in the image the graph does not know.
    """
    if spec['min_bbox_size'] > 0:
        raise ValueError(
            f'export: test_cfg has min_bbox_size={spec["min_bbox_size"]:g}, which NMS in the graph does not '
            'know; leave out --nms, or set it to 0'
        )
    graph = model.graph

    def constant(name: str, value: object, dtype: type) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), f'nms/{name}'))
        return f'nms/{name}'

    def node(kind: str, inputs: list[str], out: str, **attributes: object) -> str:
        graph.node.append(helper.make_node(kind, inputs, [f'nms/{out}'], **attributes))
        return f'nms/{out}'

    by_class = node('Transpose', ['scores'], 'by_class', perm=[0, 2, 1])
    if spec['nms_class_agnostic']:  # a box is that of all classes: NMS leaves the best one of them
        classes = node('ArgMax', [by_class], 'classes', axis=1, keepdims=0)
        axis = constant('class_axis', [1], np.int64)
        # As an attribute, the axis would belong to older graphs.
        by_class = node('ReduceMax', [by_class, axis], 'best', keepdims=1)
    inputs = [
        *('boxes', by_class),
        constant('most', [spec['max_per_img']], np.int64),
        constant('iou', [spec['nms_iou']], np.float32),
        constant('least', [spec['score_thr']], np.float32),
    ]
    chosen = node('NonMaxSuppression', inputs, 'chosen')  # rows of image, label, prior
    order = constant('order', [0, 2], np.int64)
    one = constant('one', [1], np.int64)
    places = node('Gather', [chosen, order], 'places', axis=1)
    box = node('GatherND', ['boxes', places], 'box')
    score = node('GatherND', [by_class, chosen], 'score')
    column = node('Unsqueeze', [score, one], 'column')
    if spec['nms_class_agnostic']:
        image = node('Gather', [chosen, constant('zero', [0], np.int64)], 'image', axis=1)
        label = node('Unsqueeze', [node('GatherND', [classes, places], 'class'), one], 'label')
        labels = node('Concat', [image, label], 'labels', axis=1)
    else:
        two = constant('two', [0, 1], np.int64)
        labels = node('Gather', [chosen, two], 'labels', axis=1)
    numbers = node('Cast', [labels], 'numbers', to=TensorProto.FLOAT)
    graph.node.append(helper.make_node('Concat', [numbers, column, box], ['detections'], axis=1))
    graph.output.append(helper.make_tensor_value_info('detections', TensorProto.FLOAT, ['K', 7]))
    onnx.checker.check_model(model)
