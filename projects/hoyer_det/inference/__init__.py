"""Detection on images, folders and videos with a trained model.

Nothing of it is imported by ``import hoyer_det``; ``from hoyer_det import load`` does.
"""

from hoyer_det_runtime.detections import Detections

from .detector import Detector, load

__all__ = ['Detections', 'Detector', 'load']
