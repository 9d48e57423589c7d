"""The synthetic shapes as an MMDetection data set that makes itself when it is missing."""

from typing import Any

from mmdet.registry import DATASETS

from .shapes import SHAPE_CLASSES, generate_shapes, stamped_arguments
from .voc_format import VOCFormatDataset


@DATASETS.register_module()
class ShapesDataset(VOCFormatDataset):
    """Six geometric shapes in clutter; see :func:`hoyer_det.datasets.generate_shapes`.

    Nothing is made or read with ``lazy_init=True``: MMDetection builds the data set so for its
    ``metainfo`` alone when it detects on images.

    Args:
        data_root: Folder of the data set, made with the default arguments where it does not exist. A
            finished set of other arguments is taken as it is.
        **kwargs: Arguments of :class:`VOCFormatDataset`.
    """

    def __init__(self, *, data_root: str, **kwargs: Any) -> None:
        super().__init__(data_root=data_root, metainfo=dict(classes=SHAPE_CLASSES), **kwargs)

    @classmethod
    def complete(cls, dataset: dict[str, Any]) -> None:
        """Fill in the list of images that the arguments leave open, in place, without the folder."""
        dataset.setdefault(
            'ann_file', f'ImageSets/Main/{"test" if dataset.get("test_mode") else "trainval"}.txt'
        )
        dataset['data_prefix'] = {'sub_data_root': '', **(dataset.get('data_prefix') or {})}

    def full_init(self) -> None:
        """Make the data set where it is missing, and read it."""
        if not self._fully_initialized:
            generate_shapes(self.data_root, **stamped_arguments(self.data_root))
        super().full_init()
