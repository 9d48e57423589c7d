"""Data sets: any folder in VOC layout, and the embedded shapes."""

from .shapes import SHAPE_CLASSES, generate_shapes
from .shapes_dataset import ShapesDataset
from .voc_format import VOCFormatDataset, read_classes, read_splits

__all__ = [
    'SHAPE_CLASSES',
    'ShapesDataset',
    'VOCFormatDataset',
    'generate_shapes',
    'read_classes',
    'read_splits',
]
