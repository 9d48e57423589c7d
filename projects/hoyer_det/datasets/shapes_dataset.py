"""The synthetic shapes as an MMDetection data set that makes itself when it is missing."""

from typing import Any

from mmdet.registry import DATASETS

from .shapes import SHAPE_CLASSES, generate_shapes
from .voc_format import VOCFormatDataset


@DATASETS.register_module()
class ShapesDataset(VOCFormatDataset):
    """Six geometric shapes in clutter; see :func:`hoyer_det.datasets.generate_shapes`.

    Args:
        data_root: Folder of the data set, made with the default arguments where it does not exist.
        **kwargs: Arguments of :class:`VOCFormatDataset`.
    """

    def __init__(self, *, data_root: str, **kwargs: Any) -> None:
        generate_shapes(data_root)
        super().__init__(data_root=data_root, metainfo=dict(classes=SHAPE_CLASSES), **kwargs)
