"""Any annotation file in COCO format as a data set: classes are read from the file."""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.logging import print_log

_FIELDS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd'),
    'categories': ('id', 'name'),
}


def read_categories(ann_file: str | Path) -> tuple[str, ...]:
    """Check an annotation file in COCO format and return the names of its classes.

    Args:
        ann_file: JSON file with ``images``, ``annotations`` (boxes) and ``categories``.

    Returns:
        Names in the order of the category ids, which may have gaps and need not begin at 1.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not JSON, has no images, annotations or categories; if one of these lacks
            a field, has the id of another, or refers to what is not there; if two categories have the
            same name.
    """
    content = _read_json(ann_file)
    for key, fields in _FIELDS.items():
        _check_fields(ann_file, content, key, fields)
        _check_unique(ann_file, content, key, 'id')
    _check_unique(ann_file, content, 'categories', 'name')
    names = {category['id']: category['name'] for category in content['categories']}
    images = {image['id'] for image in content['images']}
    for annotation in content['annotations']:
        for key, known in (('image_id', images), ('category_id', names)):
            if annotation[key] not in known:
                raise ValueError(
                    f'{ann_file}: annotation {annotation["id"]!r} has {key} {annotation[key]!r}, '
                    'which the file does not list'
                )
    return tuple(names[key] for key in sorted(names))


def _read_json(ann_file: str | Path) -> Any:
    if not Path(ann_file).is_file():
        raise FileNotFoundError(
            f'{ann_file}: no such annotation file in COCO format; name folder and files with '
            '`--cfg-options data_root=FOLDER train_ann=FILE val_ann=FILE`'
        )
    try:
        return json.loads(Path(ann_file).read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{ann_file}: not a valid JSON file ({error})') from None


def _check_fields(ann_file: str | Path, content: Any, key: str, fields: tuple[str, ...]) -> None:
    items = content.get(key) if isinstance(content, dict) else None
    if not items:
        raise ValueError(
            f'{ann_file}: has no {key!r}; a file in COCO format lists images, annotations and '
            'categories'
        )
    for index, item in enumerate(items):
        for field in fields:
            if field not in item:
                raise ValueError(
                    f'{ann_file}: {key}[{index}] lacks {field!r}; each needs {", ".join(fields)}'
                )
        if key == 'annotations' and len(item['bbox']) != 4:
            raise ValueError(
                f'{ann_file}: {key}[{index}] has bbox {item["bbox"]}; it must be [x, y, width, height]'
            )


def _check_unique(ann_file: str | Path, content: Any, key: str, field: str) -> None:
    value, count = Counter(item[field] for item in content[key]).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f'{ann_file}: {count} {key} have {field} {value!r}; each must have its own'
        )


class _SortedCOCO(COCO):
    """Lists the categories in the order of their ids, whatever their order in the file."""

    def createIndex(self) -> None:  # noqa: N802  the name is that of pycocotools
        self.dataset['categories'].sort(key=lambda category: category['id'])
        super().createIndex()


@DATASETS.register_module()
class CocoFormatDataset(CocoDataset):
    """Data set in COCO format with classes of its own.

    Unlike MMDetection's ``CocoDataset`` it numbers the classes by their category ids even where the
    file lists them otherwise (give ``CocoMetric`` ``sort_categories=True`` then), has no classes by
    default, and says in the log how many boxes MMDetection leaves out: those less than one pixel wide
    or high, without area, or outside the image. ``CocoMetric`` with an ``ann_file`` still counts them
    as missed. With ``filter_cfg=dict(filter_empty_gt=True)`` an image is trained on only if a box that
    is no crowd is left in it.

    Args:
        metainfo: ``classes``, all or some of the names in the file, in the order of their ids.
            :func:`hoyer_det.config.load_config` fills it in.
        ann_file: Annotation file in COCO format.
        **kwargs: Arguments of ``CocoDataset``; ``data_prefix=dict(img=...)`` is the folder of images.

    Raises:
        FileNotFoundError: If the annotation file or an image is missing.
        ValueError: If classes or annotation file are not given or do not fit each other, the file is
            faulty (see :func:`read_categories`), or no image is left.
    """

    METAINFO: dict[str, Any] = {}  # neither COCO's classes nor its colours
    COCOAPI = _SortedCOCO

    def __init__(
        self,
        *,
        metainfo: dict[str, Any] | None = None,
        ann_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not ann_file or not (metainfo or {}).get('classes'):
            raise ValueError(
                'CocoFormatDataset: needs ann_file and metainfo.classes; load the config with '
                'hoyer_det.config.load_config, as tools/train.py does, or set them'
            )
        super().__init__(metainfo=metainfo, ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the file and count the boxes that are left out."""
        names = read_categories(self.ann_file)
        classes = tuple(self.metainfo['classes'])
        expected = tuple(name for name in names if name in classes)
        if classes != expected:
            unknown = [name for name in classes if name not in names]
            problem = f'there is no category {unknown}' if unknown else 'ids order them otherwise'
            raise ValueError(
                f'{self.ann_file}: its categories are {names}, the classes asked for {classes}; '
                f'{problem}'
            )
        self._left_out = 0
        data_list = super().load_data_list()
        if self._left_out:
            print_log(
                f'{self.ann_file}: {self._left_out} boxes left out (less than a pixel wide or high, '
                'without area, outside the image, or marked ignore)',
                logger='current',
            )
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse one image and its boxes."""
        info = super().parse_data_info(raw_data_info)
        if not Path(info['img_path']).is_file():
            raise FileNotFoundError(
                f'{info["img_path"]}: no such image, but {self.ann_file} lists it; the folder of images '
                'is train_images or val_images of --cfg-options'
            )
        wanted = 0
        for annotation in raw_data_info['raw_ann_info']:
            wanted += annotation['category_id'] in self.cat2label
            if self.test_mode and annotation['id'] == 0:
                print_log(
                    f'{self.ann_file}: an annotation has id 0, which pycocotools never counts as found; '
                    'number them from 1',
                    logger='current',
                    level=logging.WARNING,
                )
        self._left_out += wanted - len(info['instances'])
        return info

    def filter_data(self) -> list[dict]:
        """Filter by ``filter_cfg`` and refuse an empty result."""
        kept = super().filter_data()
        if not self.test_mode and (self.filter_cfg or {}).get('filter_empty_gt'):
            kept = [i for i in kept if not all(box['ignore_flag'] for box in i['instances'])]
        if not kept:
            raise ValueError(
                f'{self.ann_file}: no image left of {len(self.data_list)} listed; it needs one that '
                'passes filter_cfg (for training: one with an object)'
            )
        return kept
