"""Runs exported detectors without PyTorch and MMDetection: NumPy, OpenCV, onnx and one engine.

It stands beside ``hoyer_det``, because importing that loads both.

Example::

    import hoyer_det_runtime

    model = hoyer_det_runtime.load('ssd.onnx', engine='onnxruntime', threads=4)
    for found in model.predict(['street.jpg']):
        print(found.names, found.boxes)
"""

from .detections import Detections
from .engines import ENGINES
from .model import Model, load

__all__ = ['ENGINES', 'Detections', 'Model', 'load']
