"""The objects of a detection data set, one by one, to classify."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import DATASETS
from mmengine.dataset import Compose
from PIL import Image

from ..datasets.image_size import check_sizes
from .datasets import ClassificationDataset


class _Crops:
    """Cuts the objects out when they are asked for: what is known of its image, a box and a class each."""

    def __init__(
        self, objects: Sequence[tuple[dict[str, Any], Sequence[float], int]], context: float
    ) -> None:
        self._objects, self._context = objects, context
        self._load = Compose([LoadImageFromFile()])  # as detectors read it
        check_sizes(self._load)

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        info, (left, top, right, bottom), label = self._objects[index]
        image = self._load(dict(info))['img']
        reach = self._context * max(right - left, bottom - top) / 2
        x, y = (left + right) / 2, (top + bottom) / 2
        columns = slice(round(max(x - reach, 0)), round(min(x + reach, image.shape[1])))
        rows = slice(round(max(y - reach, 0)), round(min(y + reach, image.shape[0])))
        return Image.fromarray(np.ascontiguousarray(image[rows, columns, ::-1])), label


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
        ValueError: If no object is left. A sample whose image has not the declared size raises it, too.
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
            image = {key: info[key] for key in ('img_path', 'height', 'width') if key in info}
            for item in info['instances']:
                left, top, right, bottom = item['bbox']
                if max(right - left, bottom - top) >= min_size and not item['ignore_flag']:
                    objects.append((image, item['bbox'], item['bbox_label']))
        if not objects:
            source = getattr(detection, 'ann_file', 'ObjectCropsDataset')
            raise ValueError(
                f'{source}: none of the objects of {len(detection)} images has a side of {min_size:g} '
                'pixels and counts (difficult ones and crowds do not); train without --from-objects, or '
                'lower min_size'
            )
        super().__init__(_Crops(objects, context), detection.metainfo['classes'], transforms)
