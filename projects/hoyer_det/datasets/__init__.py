"""Data sets: any folder in VOC layout, and the embedded shapes."""

from .voc_format import VOCFormatDataset, read_classes, read_splits

__all__ = ['VOCFormatDataset', 'read_classes', 'read_splits']
