"""The objects of a detection data set, one by one, to classify."""

from collections.abc import Sequence
from typing import Any

from mmdet.registry import DATASETS
from PIL import Image, ImageOps

from .datasets import ClassificationDataset


class _Crops:
    """Cuts the objects out when they are asked for: a file, a box and a class each."""

    def __init__(self, objects: Sequence[tuple[str, Sequence[float], int]], context: float) -> None:
        self._objects, self._context = objects, context

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, (left, top, right, bottom), label = self._objects[index]
        reach = self._context * max(right - left, bottom - top) / 2
        x, y = (left + right) / 2, (top + bottom) / 2
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)  # as detectors read it
            inside = max(x - reach, 0), max(y - reach, 0)
            outside = min(x + reach, image.width), min(y + reach, image.height)
            return image.convert('RGB').crop([round(side) for side in (*inside, *outside)]), label


@DATASETS.register_module()
class ObjectCropsDataset(ClassificationDataset):
    """The objects of a detection data set as images of a class each.

    An object is cut out with some of what is around it: a square, as far as it lies within the
    image. Left out are objects that the detector does not learn from either (``ignore_flag``, such as
    difficult ones), and small ones.

    Args:
        dataset: Config of a detection data set of MMDetection or of this package; needs no pipeline.
        transforms: Configs of torchvision's transforms.
        context: Side of the square, in longer sides of the object.
        min_size: Least longer side of an object, in pixels.

    Raises:
        ValueError: If no object is left.
    """

    def __init__(
        self,
        dataset: dict[str, Any],
        transforms: Sequence[dict[str, Any]],
        context: float = 1.25,
        min_size: float = 16.0,
    ) -> None:
        detection = DATASETS.build(dataset)
        detection.full_init()
        objects = []
        for info in map(detection.get_data_info, range(len(detection))):
            for item in info['instances']:
                left, top, right, bottom = item['bbox']
                if max(right - left, bottom - top) >= min_size and not item['ignore_flag']:
                    objects.append((info['img_path'], item['bbox'], item['bbox_label']))
        if not objects:
            raise ValueError(
                f'ObjectCropsDataset: none of the objects of {len(detection)} images has a side of '
                f'{min_size} pixels and counts; lower min_size'
            )
        super().__init__(_Crops(objects, context), detection.metainfo['classes'], transforms)
