"""Data sets: any folder in VOC layout or with COCO JSON, and the synthetic shapes."""

from .coco_format import CocoFormatDataset
from .completion import complete_config, set_num_classes
from .quick_crop import QuickMinIoURandomCrop
from .shapes import SHAPE_CLASSES, generate_shapes
from .shapes_dataset import ShapesDataset
from .voc_format import VOCFormatDataset, read_classes, read_splits

__all__ = [
    'SHAPE_CLASSES',
    'CocoFormatDataset',
    'QuickMinIoURandomCrop',
    'ShapesDataset',
    'VOCFormatDataset',
    'complete_config',
    'generate_shapes',
    'read_classes',
    'read_splits',
    'set_num_classes',
]
