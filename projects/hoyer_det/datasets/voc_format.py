"""Any folder in Pascal VOC layout as a data set: classes and splits are read from the folder."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import XMLDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.JPG', '.JPEG', '.PNG', '.BMP')


def read_classes(data_root: str | Path) -> tuple[str, ...]:
    """Return the sorted class names found in ``data_root/Annotations/*.xml``.

    All annotations are read, not those of one split, so that every split numbers its classes alike.

    Raises:
        FileNotFoundError: If there are no annotation files.
        ValueError: If a file is not XML, or no file has an object.
    """
    folder = Path(data_root) / 'Annotations'
    files = sorted(folder.glob('*.xml'))
    if not files:
        raise FileNotFoundError(
            f'{folder}: no *.xml files there; a folder in Pascal VOC layout has JPEGImages, Annotations '
            'and ImageSets/Main (set data_root to it)'
        )
    names = set()
    for file in files:
        try:
            objects = ET.parse(file).getroot().iter('object')
            names.update((o.findtext('name') or '').strip() for o in objects)
        except ET.ParseError as error:
            raise ValueError(f'{file}: not a valid XML file ({error}); mend or remove it') from None
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
        ``('train', 'val')``. The two never overlap.

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


@DATASETS.register_module()
class VOCFormatDataset(XMLDataset):
    """Data set in Pascal VOC layout with classes of its own.

    Unlike MMDetection's ``VOCDataset`` its classes are those found in the annotations (sorted by
    name) unless ``metainfo`` gives them, and boxes of zero area, which real data has, are left out of
    training and evaluation with a line in the log that counts them: no detection can ever match them,
    and as training targets their logarithms are infinite.

    Args:
        metainfo: May give ``classes``.
        data_root: Folder with JPEGImages, Annotations and ImageSets/Main.
        **kwargs: Arguments of ``XMLDataset``.

    Raises:
        FileNotFoundError: If the folder or the list of the split is missing.
        ValueError: If no image is left, or an annotation is unreadable, or names a class that is not in
            ``metainfo['classes']``.
    """

    def __init__(
        self, *, data_root: str, metainfo: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if not (metainfo or {}).get('classes'):
            metainfo = {**(metainfo or {}), 'classes': read_classes(data_root)}
        super().__init__(data_root=data_root, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the split and leave out boxes of zero area."""
        if not self.ann_file:
            raise ValueError(
                'VOCFormatDataset: no ann_file; load the config with hoyer_det.config.load_config, as '
                'tools/train.py does, or set it to ImageSets/Main/<split>.txt'
            )
        if not Path(self.ann_file).is_file():
            raise FileNotFoundError(f'{self.ann_file}: this list of images does not exist')
        self._degenerate: list[str] = []
        data_list = super().load_data_list()
        if self._degenerate:
            print_log(
                f'{self.ann_file}: {len(self._degenerate)} boxes of zero area left out, in '
                f'{", ".join(sorted(set(self._degenerate)))}',
                logger='current',
            )
        return data_list

    def filter_data(self) -> list[dict]:
        """Filter by ``filter_cfg`` and refuse an empty result."""
        kept = super().filter_data()
        if not kept:
            raise ValueError(
                f'{self.ann_file}: no image left of {len(self.data_list)} listed; it needs one that '
                'passes filter_cfg (for training: one with an object)'
            )
        return kept

    def parse_data_info(self, img_info: dict) -> dict:
        """Parse one annotation file."""
        self._image = img_info['img_id']
        if not self._image:
            raise ValueError(f'{self.ann_file}: has an empty line; remove it')
        img_info['file_name'] = self._find_image(self._image)
        if not Path(img_info['xml_path']).is_file():
            raise FileNotFoundError(
                f'{img_info["xml_path"]}: missing, but {self.ann_file} lists {self._image}'
            )
        try:
            info = super().parse_data_info(img_info)
        except (ET.ParseError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f'{img_info["xml_path"]}: this annotation, or its image, cannot be used ({error}); '
                f'mend it, or take {self._image} out of {self.ann_file}'
            ) from error
        if min(info['width'], info['height']) <= 0:
            raise ValueError(
                f'{info["xml_path"]}: says the image is {info["width"]} x {info["height"]} pixels; '
                'correct or remove its <size>'
            )
        return info

    def _find_image(self, name: str) -> str:
        """Return the path of an image below the root, whatever kind of file it is."""
        folder = Path(self.sub_data_root) / self.img_subdir
        for suffix in _IMAGE_SUFFIXES:
            if (folder / f'{name}{suffix}').is_file():
                return f'{self.img_subdir}/{name}{suffix}'
        raise FileNotFoundError(
            f'{folder / name}: no such image ({", ".join(_IMAGE_SUFFIXES)}), but {self.ann_file} '
            'lists it'
        )

    def _parse_instance_info(self, raw_ann_info: ET.ElementTree, minus_one: bool = True) -> list:
        self._check_names(raw_ann_info)
        kept = []
        for instance in super()._parse_instance_info(raw_ann_info, minus_one):
            x1, y1, x2, y2 = instance['bbox']
            if x2 > x1 and y2 > y1:
                kept.append(instance)
            else:
                self._degenerate.append(self._image)
        return kept

    def _check_names(self, raw_ann_info: ET.ElementTree) -> None:
        classes: Sequence[str] = self._metainfo['classes']
        for item in raw_ann_info.iter('object'):
            name = (item.findtext('name') or '').strip()
            if name in classes:
                item.find('name').text = name  # as `read_classes` does, without space around it
            else:
                raise ValueError(
                    f'class {name!r} is not among the classes of the data set, {tuple(classes)}'
                )
