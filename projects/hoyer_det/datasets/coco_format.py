"""Any annotation file in COCO format as a data set: classes are read from the file."""

import functools
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from .faults import (
    box_fault,
    log_left_out,
    name_fault,
    names_all,
    refuse_empty,
    require_folder,
    shorten,
)
from .image_size import check_sizes
from .yolo_format import refuse_yolo

_FIELDS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox'),
    'categories': ('id', 'name'),
}
# COCO's own layout, taken where nothing else is named.
_SPLITS = {False: 'train2017', True: 'val2017'}


def read_annotations(ann_file: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Read and check an annotation file in COCO format.

    What has one meaning only is made plain: categories are sorted by their ids, a missing ``iscrowd`` is
    0 and one written as text is a number, a missing ``area`` is that of the box.

    Args:
        ann_file: JSON file with ``images``, ``annotations`` (boxes) and ``categories``.

    Returns:
        The content, and a line for each thing in it that is probably not meant.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not JSON, has no images, annotations or categories; if one of these lacks
            a field, has the id of another, or refers to what is not there; if two categories have the
            same name or one has none; if the boxes are corners instead of (x, y, width, height).
    """
    content = _read_json(ann_file)
    for key, fields in _FIELDS.items():
        _check_fields(ann_file, content, key, fields)
        _check_unique(ann_file, content, key, 'id')
    for category in content['categories']:
        if name_fault(category['name']):
            raise ValueError(
                f'{ann_file}: the name of category {category["id"]!r} {name_fault(category["name"])}'
            )
    _check_unique(ann_file, content, 'categories', 'name')
    content['categories'].sort(key=lambda category: (str(type(category['id'])), category['id']))
    known = {
        'image_id': {image['id'] for image in content['images']},
        'category_id': {category['id'] for category in content['categories']},
    }
    texts = 0
    for annotation in content['annotations']:
        for key, ids in known.items():
            if annotation[key] not in ids:
                raise ValueError(
                    f'{ann_file}: annotation {annotation["id"]!r} has {key} {annotation[key]!r}, '
                    'which the file does not list'
                )
        crowd = annotation.get('iscrowd', 0)
        if str(crowd) not in ('0', '1', 'True', 'False'):
            raise ValueError(
                f'{ann_file}: annotation {annotation["id"]!r} has iscrowd {shorten(repr(crowd))}; it '
                'must be 0 or 1'
            )
        texts += isinstance(crowd, str)
        annotation['iscrowd'] = int(str(crowd) in ('1', 'True'))
    beyond = _beyond(ann_file, content)
    without = [a for a in content['annotations'] if a.get('area') is None]
    for annotation in without:
        annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
    notes = [f'{texts} iscrowd are text instead of a number, taken as numbers'] if texts else []
    if without:
        notes.append(f'{len(without)} boxes have no area, taken as width * height')
    if beyond:
        notes.append(f'{beyond} boxes reach more than a pixel beyond their image')
    file, count = Counter(image['file_name'] for image in content['images']).most_common(1)[0]
    if count > 1:
        notes.append(
            f'{count} images are the same file {file}: its objects may be spread over several ids'
        )
    return content, notes


def _beyond(ann_file: str | Path, content: dict[str, Any]) -> int:
    """Return how many boxes reach more than a pixel beyond their image.

    Raises:
        ValueError: If most do, and nearly all are within it when they are read as corners.
    """
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    beyond = corners = 0
    for annotation in content['annotations']:
        (x, y, w, h), (width, height) = annotation['bbox'], sizes[annotation['image_id']]
        beyond += min(x, y) < -1 or x + w > width + 1 or y + h > height + 1
        corners += -1 <= x <= w <= width + 1 and -1 <= y <= h <= height + 1
    number = len(content['annotations'])
    if beyond > 0.5 * number and corners >= 0.95 * number:
        raise ValueError(
            f'{ann_file}: bbox is [x1, y1, x2, y2], as it seems: {beyond} of {number} boxes reach beyond '
            f'their image, {number - corners} when read so; write [x, y, width, height]'
        )
    return beyond


def _summary(ann_file: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of classes and of image files, without reading a large file again."""
    changed = os.stat(ann_file).st_mtime_ns if os.path.isfile(ann_file) else 0
    return _summary_of(ann_file, changed)


@functools.lru_cache(maxsize=8)
def _summary_of(ann_file: str, changed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    content, _ = read_annotations(ann_file)
    return (
        tuple(category['name'] for category in content['categories']),
        tuple(image['file_name'] for image in content['images']),
    )


def _read_json(ann_file: str | Path) -> Any:
    if not Path(ann_file).is_file():
        raise FileNotFoundError(
            f'{ann_file}: no such annotation file in COCO format; name folder and files with '
            '`--cfg-options data_root=FOLDER train_ann=FILE val_ann=FILE`'
        )
    try:
        return json.loads(Path(ann_file).read_text(encoding='utf-8-sig'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{ann_file}: not a valid JSON file ({error})') from None


def _check_fields(ann_file: str | Path, content: Any, key: str, fields: tuple[str, ...]) -> None:
    items = content.get(key) if isinstance(content, dict) else None
    if not items or not isinstance(items, list):
        fault = f'has an empty list of {key!r}' if items == [] else f'has no list of {key!r}'
        raise ValueError(
            f'{ann_file}: {fault}; a file in COCO format lists images, annotations and categories'
        )
    for index, item in enumerate(items):
        for field in fields:
            if not isinstance(item, dict) or field not in item:
                raise ValueError(
                    f'{ann_file}: {key}[{index}] lacks {field!r}; each needs {", ".join(fields)}'
                )
        if not isinstance(item.get('file_name', ''), str):
            raise ValueError(
                f'{ann_file}: {key}[{index}] has file_name {shorten(repr(item["file_name"]))}; it must be a '
                'text'
            )
        for field in {'id', 'image_id', 'category_id'}.intersection(item):
            if not isinstance(item[field], int | str):
                raise ValueError(
                    f'{ann_file}: {key}[{index}] has {field} {shorten(repr(item[field]))}; it must be a '
                    'number or a word'
                )
        if key == 'annotations' and not _is_box(item['bbox']):
            raise ValueError(
                f'{ann_file}: {key}[{index}] has bbox {shorten(str(item["bbox"]))}; it must be '
                '[x, y, width, height]'
            )
        for field in {'width', 'height', 'area'}.intersection(item):
            if field == 'area' and item[field] is None:
                continue
            if not isinstance(item[field], int | float):
                raise ValueError(
                    f'{ann_file}: {key}[{index}] has {field} {shorten(repr(item[field]))}; it must be a '
                    'number'
                )
        for field in {'width', 'height'}.intersection(item):
            if not item[field] > 0:
                raise ValueError(
                    f'{ann_file}: {key}[{index}] has {field} {item[field]}; it must be above 0'
                )


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(number, int | float) for number in box)
    )


def _check_unique(ann_file: str | Path, content: Any, key: str, field: str) -> None:
    value, count = Counter(item[field] for item in content[key]).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f'{ann_file}: {count} {key} have {field} {value!r}; each must have its own'
        )


class _CheckedCOCO(COCO):
    """The content of an annotation file that was read and checked before."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__()
        self.dataset = content
        with redirect_stdout(None):  # it prints that it does so
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs


@DATASETS.register_module()
class CocoFormatDataset(CocoDataset):
    """Data set in COCO format with classes of its own.

    Unlike MMDetection's ``CocoDataset`` its classes are those of the file, numbered by their category
    ids even where the file lists them otherwise, unless ``metainfo`` gives them. It says in the log how
    many boxes are left out of training and evaluation: those less than one pixel wide or high, without
    area, not finite, or outside the image. Let ``CocoMetric`` take the ground truth from the samples
    (no ``ann_file``): it then counts what the data set has. With
    ``filter_cfg=dict(filter_empty_gt=True)`` an image is trained on only if a box that is no crowd is
    left in it.

    Args:
        metainfo: May give ``classes``, all or some of the names in the file, in the order of their ids.
        ann_file: Annotation file; by default that of COCO 2017's own layout, by ``test_mode``.
        data_prefix: ``dict(img=...)`` is the folder of images; by default likewise.
        **kwargs: Arguments of ``CocoDataset``.

    Raises:
        FileNotFoundError: If the annotation file or an image is missing.
        ValueError: If the classes do not fit the file, the file is faulty (see
            :func:`read_annotations`), an image file is empty, or no image is left. A sample whose
            image has not the declared size raises it, too.
    """

    METAINFO: dict[str, Any] = {}  # neither COCO's classes nor its colours

    def __init__(self, **kwargs: Any) -> None:
        if not (kwargs.get('lazy_init') and names_all(kwargs)):  # for its metainfo alone
            self.complete(kwargs)
        super().__init__(**kwargs)
        check_sizes(self.pipeline)

    @classmethod
    def name_files(cls, dataset: dict[str, Any]) -> None:
        """Fill in the files that the arguments leave open, in place."""
        if dataset.get('data_root'):
            require_folder(dataset['data_root'], 'with annotations in COCO format')
        split = _SPLITS[bool(dataset.get('test_mode'))]
        if not dataset.get('ann_file'):
            dataset['ann_file'] = f'annotations/instances_{split}.json'
        prefix = dataset.get('data_prefix') or {}
        if prefix.get('img') is None:
            dataset['data_prefix'] = {**prefix, 'img': f'{split}/'}

    @classmethod
    def complete(cls, dataset: dict[str, Any]) -> None:
        """Fill in the files and the classes that the arguments leave open, in place."""
        cls.name_files(dataset)
        if dataset.get('data_root') and not os.path.isfile(cls._file(dataset)):
            refuse_yolo(dataset['data_root'])
        metainfo = dataset.get('metainfo') or {}
        classes = metainfo.get('classes') or _summary(cls._file(dataset))[0]
        classes = (classes,) if isinstance(classes, str) else tuple(classes)
        dataset['metainfo'] = {**metainfo, 'classes': classes}

    @classmethod
    def class_source(cls, dataset: dict[str, Any]) -> str:
        """Return where below ``data_root`` the classes are read from."""
        return dataset['ann_file']

    @classmethod
    def listed_images(cls, dataset: dict[str, Any]) -> Iterator[str]:
        """Yield the image files that a completed data set lists."""
        folder = os.path.join(dataset.get('data_root') or '', dataset['data_prefix']['img'])
        file = cls._file(dataset)
        if os.path.isfile(file):
            for name in _summary(file)[1]:
                yield os.path.normpath(os.path.join(folder, name))

    @staticmethod
    def _file(dataset: dict[str, Any]) -> str:
        return os.path.join(dataset.get('data_root') or '', dataset['ann_file'])

    def COCOAPI(self, ann_file: str) -> COCO:  # noqa: N802  the name is that of CocoDataset
        """Read the annotation file, with a line in the log for what is probably not meant."""
        content, notes = read_annotations(ann_file)
        for note in notes:
            print_log(f'{ann_file}: {note}', logger='current', level=logging.WARNING)
        names = tuple(category['name'] for category in content['categories'])
        classes = tuple(self.metainfo['classes'])
        if classes != tuple(name for name in names if name in classes):
            unknown = [name for name in classes if name not in names]
            ordered = ','.join(name for name in names if name in classes)
            problem = (
                f'there is no category {unknown}'
                if unknown
                else f'give them in the order of their ids: classes=[{ordered}]'
            )
            raise ValueError(
                f'{ann_file}: its categories are {names}, the classes asked for {classes}; {problem}'
            )
        return _CheckedCOCO(content)

    def load_data_list(self) -> list[dict]:
        """Read the file and count the boxes that are left out."""
        self._left_out: dict[str, list[str]] = defaultdict(list)
        data_list = super().load_data_list()
        log_left_out(self.ann_file, self._left_out)
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse one image and its boxes."""
        image, good = raw_data_info['raw_img_info'], []
        for annotation in raw_data_info['raw_ann_info']:
            fault = annotation_fault(annotation, image['width'], image['height'])
            if fault is None:
                good.append(annotation)
            elif annotation['category_id'] in self.cat2label:
                self._left_out[fault].append(image['file_name'])
        raw_data_info['raw_ann_info'] = good
        info = super().parse_data_info(raw_data_info)
        path = Path(info['img_path'])
        if not path.is_file():
            raise FileNotFoundError(
                f'{path}: no such image, but {self.ann_file} lists it; the folder of images '
                'is train_images or val_images of --cfg-options'
            )
        if path.stat().st_size == 0:
            raise ValueError(
                f'{path}: is an empty file; restore it, or take it out of {self.ann_file}'
            )
        return info

    def filter_data(self) -> list[dict]:
        """Filter by ``filter_cfg`` and refuse an empty result."""
        kept = super().filter_data()
        if not self.test_mode and (self.filter_cfg or {}).get('filter_empty_gt'):
            kept = [i for i in kept if not all(box['ignore_flag'] for box in i['instances'])]
        refuse_empty(self, kept)
        return kept


def annotation_fault(annotation: dict[str, Any], width: float, height: float) -> str | None:
    """Tell why MMDetection leaves a box out, None if it takes it.

    Args:
        annotation: One of the annotations of an image.
        width: Width of the image in pixels.
        height: Its height.
    """
    x, y, box_width, box_height = annotation['bbox']
    fault = box_fault((x, y, x + box_width, y + box_height), width, height)
    if fault is not None:
        return fault
    if annotation.get('ignore'):
        return 'marked ignore'
    if box_width < 1 or box_height < 1:
        return 'less than a pixel wide or high'
    return None if annotation['area'] > 0 else 'area not above 0'
