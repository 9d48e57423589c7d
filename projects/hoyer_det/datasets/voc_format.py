"""Any folder in Pascal VOC layout as a data set: classes and splits are read from the folder."""

import logging
import math
import os
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import XMLDataset
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
from .folders import files_below
from .image_size import check_sizes
from .yolo_format import refuse_yolo

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.JPG', '.JPEG', '.PNG', '.BMP')


def voc_folders(dataset: Mapping[str, Any]) -> tuple[str, str]:
    """Return the folders of images and of annotations below ``data_root`` that a config names."""
    root = (dataset.get('data_prefix') or {}).get('sub_data_root', '')
    folders = dataset.get('img_subdir', 'JPEGImages'), dataset.get('ann_subdir', 'Annotations')
    return tuple(os.path.join(root, folder) for folder in folders)


def read_classes(data_root: str | Path, annotations: str = 'Annotations') -> tuple[str, ...]:
    """Return the sorted class names found in the ``*.xml`` below ``data_root/Annotations``.

    All annotations are read, not those of one split, so that every split numbers its classes alike.

    Args:
        data_root: Folder of the data set.
        annotations: Folder of the annotations below it.

    Raises:
        FileNotFoundError: If there are no annotation files; it says so where they are in YOLO format.
        ValueError: If a file is not XML, a name cannot be that of a class, or no file has an object.
    """
    folder = Path(data_root) / annotations
    files = annotation_files(folder)
    if not files:
        refuse_yolo(data_root)
        raise FileNotFoundError(
            f'{folder}: no *.xml files there; a folder in Pascal VOC layout has JPEGImages, Annotations '
            'and ImageSets/Main (set data_root to it)'
        )
    names = set()
    for file in files:
        for name in map(object_name, read_annotation(file).iter('object')):
            if name and name_fault(name):
                raise ValueError(f'{file}: the name of a class {name_fault(name)}')
            names.add(name)
    names.discard('')
    if not names:
        raise ValueError(
            f'{folder}: {len(files)} files, none with a named object; nothing to learn'
        )
    return tuple(sorted(names))


def read_splits(data_root: str | Path) -> tuple[str, str]:
    """Choose what to train and what to evaluate on from ``data_root/ImageSets/Main``.

    Returns:
        ``('trainval', 'test')`` where both lists exist; else ``('train', 'test')``, else
        ``('train', 'val')``.

    Raises:
        FileNotFoundError: If no such pair exists.
    """
    folder = Path(data_root) / 'ImageSets' / 'Main'
    for pair in (('trainval', 'test'), ('train', 'test'), ('train', 'val')):
        if all((folder / f'{name}.txt').is_file() for name in pair):
            return pair
    raise FileNotFoundError(
        f'{folder}: needs trainval.txt (or train.txt) to train on and test.txt (or val.txt) to evaluate '
        'on, each with one image name without extension a line'
    )


def read_list(file: str | Path) -> list[str]:
    """Return the lines of a list of images, without space around them.

    Raises:
        FileNotFoundError: If there is no such list.
        ValueError: If it is no text.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f'{file}: this list of images does not exist')
    try:
        return [line.strip() for line in Path(file).read_text(encoding='utf-8-sig').splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f'{file}: this list of images is no text in UTF-8 ({error})') from None


def annotation_files(folder: str | Path) -> list[Path]:
    """Return all annotations of a folder and of those below it, sorted."""
    return [file for file in files_below(folder) if file.suffix == '.xml']


def read_annotation(file: str | Path) -> ET.Element:
    """Return the root of an annotation, its tags without XML namespaces.

    Raises:
        ValueError: If it is no XML, or in an encoding that Python cannot read.
    """
    try:
        return without_namespaces(ET.parse(file).getroot())
    except (ET.ParseError, ValueError, LookupError) as error:  # the last two: of encodings
        raise ValueError(f'{file}: not a valid XML file ({error}); mend or remove it') from None


def without_namespaces(root: ET.Element) -> ET.Element:
    """Take the XML namespaces out of an annotation, in place: ``find('size')`` sees no other."""
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition('}')[2]
    return root


def object_name(item: ET.Element) -> str:
    """Return the class of an ``<object>``, without space around it."""
    return (item.findtext('name') or '').strip()


def object_box(item: ET.Element) -> tuple[float, float, float, float]:
    """Return the box of an ``<object>`` in pixels counted from 1, as its annotation has it.

    Raises:
        ValueError: If a number is missing or is none.
    """
    numbers = [item.findtext(f'bndbox/{key}') for key in ('xmin', 'ymin', 'xmax', 'ymax')]
    try:
        return tuple(float(number) for number in numbers)
    except (TypeError, ValueError):
        raise ValueError(
            f'a box has the numbers {shorten(str(numbers))}; it needs xmin, ymin, xmax and ymax'
        ) from None


def object_difficult(item: ET.Element) -> bool:
    """Tell whether an ``<object>`` is marked difficult.

    Raises:
        ValueError: If it says so in something else than a number.
    """
    text = item.findtext('difficult', '0')
    try:
        return bool(int(text))
    except ValueError:
        raise ValueError(
            f'an object has difficult {shorten(repr(text))}; it must be 0 or 1'
        ) from None


def find_images(folder: str | Path, name: str) -> list[Path]:
    """Return the images of a name in a folder, whatever kind of file they are; there should be one."""
    found: dict[tuple[int, int], Path] = {}
    for path in (Path(folder) / f'{name}{suffix}' for suffix in IMAGE_SUFFIXES):
        if path.is_file():
            # A file system that takes .jpg for .JPG shows one file twice.
            stat = path.stat()
            found.setdefault((stat.st_dev, stat.st_ino), path)
    return list(found.values())


@DATASETS.register_module()
class VOCFormatDataset(XMLDataset):
    """Data set in Pascal VOC layout with classes of its own.

    Unlike MMDetection's ``VOCDataset`` its classes are those found in the annotations (sorted by
    name) unless ``metainfo`` gives them, and it chooses its split itself, by ``test_mode``, unless
    ``ann_file`` names one. Boxes that can neither be learnt nor found (of zero area, inverted, not
    finite, outside the image; real data has them) are left out of training and evaluation with a line
    in the log that counts them. An image listed twice is taken once.

    Args:
        data_root: Folder with JPEGImages, Annotations and ImageSets/Main.
        metainfo: May give ``classes``.
        ann_file: List of images below ``data_root``; by default as :func:`read_splits` chooses.
        **kwargs: Arguments of ``XMLDataset``.

    Raises:
        FileNotFoundError: If the folder, the list of the split or a file that it names is missing.
        ValueError: If no image is left, a file is empty or unreadable, two images have the name that
            is listed (``a.jpg`` and ``a.png``), or an annotation names a class
            that is not in ``metainfo['classes']``. A sample whose image has not the declared size
            raises it, too.
    """

    def __init__(self, **kwargs: Any) -> None:
        if not (kwargs.get('lazy_init') and names_all(kwargs)):  # for its metainfo alone
            self.complete(kwargs)
        super().__init__(**kwargs)
        check_sizes(self.pipeline)

    @classmethod
    def name_files(cls, dataset: dict[str, Any]) -> None:
        """Fill in the list of images that the arguments leave open, in place."""
        root = require_folder(dataset.get('data_root'), 'in Pascal VOC layout')
        # Without a prefix MMDetection would look beside data_root, not below it.
        dataset['data_prefix'] = {'sub_data_root': '', **(dataset.get('data_prefix') or {})}
        if not dataset.get('ann_file'):
            train, test = read_splits(root)
            dataset['ann_file'] = (
                f'ImageSets/Main/{test if dataset.get("test_mode") else train}.txt'
            )

    @classmethod
    def complete(cls, dataset: dict[str, Any]) -> None:
        """Fill in the files and the classes that the arguments leave open, in place."""
        root = require_folder(dataset.get('data_root'), 'in Pascal VOC layout')
        metainfo = dataset.get('metainfo') or {}
        classes = metainfo.get('classes') or read_classes(root, cls.class_source(dataset))
        classes = (classes,) if isinstance(classes, str) else tuple(classes)
        dataset['metainfo'] = {**metainfo, 'classes': classes}
        cls.name_files(dataset)

    @classmethod
    def class_source(cls, dataset: dict[str, Any]) -> str:
        """Return where below ``data_root`` the classes are read from."""
        return voc_folders(dataset)[1]

    @classmethod
    def listed_images(cls, dataset: dict[str, Any]) -> Iterator[str]:
        """Yield the images that a completed data set lists, without their suffixes."""
        root = Path(dataset['data_root'])
        folder = root / voc_folders(dataset)[0]
        file = root / dataset['ann_file']
        if file.is_file():
            for name in read_list(file):
                yield str(folder / name)

    def load_data_list(self) -> list[dict]:
        """Read the split and leave out what no detector can learn or find."""
        self.cat2label = {name: label for label, name in enumerate(self._metainfo['classes'])}
        self._left_out: dict[str, list[str]] = defaultdict(list)
        # Not MMDetection's reader of lists, which keeps space around a name and a byte order mark.
        listed = read_list(self.ann_file)
        folder = os.path.join(self.sub_data_root, self.ann_subdir)
        data_list = [
            self.parse_data_info(dict(img_id=name, xml_path=os.path.join(folder, f'{name}.xml')))
            for name in dict.fromkeys(listed)
        ]
        if len(data_list) < len(listed):
            print_log(
                f'{self.ann_file}: {len(listed) - len(data_list)} lines repeat an image, each image is '
                'taken once',
                logger='current',
                level=logging.WARNING,
            )
        log_left_out(self.ann_file, self._left_out)
        return data_list

    def filter_data(self) -> list[dict]:
        """Filter by ``filter_cfg`` and refuse an empty result."""
        kept = super().filter_data()
        refuse_empty(self, kept)
        return kept

    def parse_data_info(self, img_info: dict) -> dict:
        """Parse one annotation file."""
        name = self._image = img_info['img_id']
        if not name:
            raise ValueError(f'{self.ann_file}: has an empty line; remove it')
        img_info['file_name'] = self._find_image(name)
        if not Path(img_info['xml_path']).is_file():
            raise FileNotFoundError(
                f'{img_info["xml_path"]}: missing, but {self.ann_file} lists {name}'
            )
        try:
            info = super().parse_data_info(img_info)
        except (
            ET.ParseError,
            AttributeError,
            LookupError,  # of an encoding
            TypeError,
            ValueError,
            OverflowError,
        ) as error:
            raise ValueError(
                f'{img_info["xml_path"]}: this annotation, or its image, cannot be used ({error}); '
                f'mend it, or take {name} out of {self.ann_file}'
            ) from error
        width, height = info['width'], info['height']
        if min(width, height) <= 0:
            raise ValueError(
                f'{info["xml_path"]}: says the image is {width} x {height} pixels; '
                'correct or remove its <size>'
            )
        good = []
        for instance in info['instances']:
            fault = box_fault(instance['bbox'], width, height)
            if fault is None:
                good.append(instance)
            else:
                self._left_out[fault].append(name)
        info['instances'] = good
        return info

    def _find_image(self, name: str) -> str:
        """Return the path of an image below the root, whatever kind of file it is."""
        folder = Path(self.sub_data_root) / self.img_subdir
        path, *others = find_images(folder, name) or (None,)
        if path is None:
            raise FileNotFoundError(
                f'{folder / name}: no such image ({", ".join(IMAGE_SUFFIXES)}), but {self.ann_file} '
                'lists it'
            )
        if others:
            raise ValueError(
                f'{path}: there is {others[0].name}, too, and {self.ann_file} lists {name} without suffix; '
                'remove or rename one'
            )
        if path.stat().st_size == 0:
            raise ValueError(
                f'{path}: is an empty file; restore it, or take it out of {self.ann_file}'
            )
        return os.path.join(self.img_subdir, f'{name}{path.suffix}')

    def _parse_instance_info(self, raw_ann_info: ET.ElementTree, minus_one: bool = True) -> list:
        root = without_namespaces(raw_ann_info.getroot())
        self._check_names(root)
        for item in root.findall('object'):
            object_difficult(item)  # whose error says more than MMDetection's
            if not all(math.isfinite(number) for number in object_box(item)):
                root.remove(item)  # MMDetection takes every number as an integer
                self._left_out['not finite'].append(self._image)
        return super()._parse_instance_info(raw_ann_info, minus_one)

    def _check_names(self, root: ET.Element) -> None:
        classes: Sequence[str] = self._metainfo['classes']
        for item in root.iter('object'):
            name = object_name(item)
            if name in classes:
                item.find('name').text = name  # as `read_classes` does, without space around it
            else:
                raise ValueError(
                    f'class {shorten(repr(name))} is not among the classes of the data set, '
                    f'{shorten(str(tuple(classes)), 300)}'
                )
