"""Reads a data set in YOLO format and writes it in COCO format.

The layout is that of Ultralytics: a YAML file names the classes and the images of each split, and
``labels/a/b.txt`` holds the objects of ``images/a/b.jpg``. supervision 0.31 and globox 2.9 read such labels,
but not the splits of the YAML file, and neither names the line of a fault.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from ..files import write_text
from .faults import name_fault, shorten
from .folders import files_below, new_folder
from .image_size import seen_size

_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
_SPLITS = ('train', 'val', 'test')
_ROUNDING = 1e-3  # by which fractions may leave 0 to 1; they are clipped


def convert_yolo(source: str | Path, out: str | Path, copy: bool = False) -> dict[str, int]:
    """Write a data set in YOLO format as one in COCO's own layout.

    Args:
        source: The YAML file, or a folder with ``data.yaml`` or with a single YAML file.
        out: New folder: ``annotations/instances_{train,val,test}2017.json`` and the pictures in
            ``{train,val,test}2017``. It appears when it is complete.
        copy: Whether pictures are copied; by default they are linked to.

    Returns:
        The number of images of each split.

    Raises:
        FileExistsError: If ``out`` exists.
        FileNotFoundError: If the YAML file, or images that it names, are missing.
        ValueError: If the YAML file, an image or a line of a label file is faulty.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f'{out}: exists already; name a new folder')
    file = find_yaml(source)
    content = _read_yaml(file)
    names = _class_names(file, content)
    keypoints = _keypoint_numbers(file, content)
    root = _root(file, content)
    splits = {split: _images(file, root, split, content.get(split)) for split in _SPLITS}
    with new_folder(out) as temporary:
        for split, images in splits.items():
            if images:
                _write_split(temporary, split, images, names, keypoints, copy)
    _say_which_labels_are_left(splits)
    return {split: len(images) for split, images in splits.items() if images}


def refuse_yolo(data_root: str | Path) -> None:
    """Raise an error that names the command, if a folder holds a data set in YOLO format."""
    root = Path(data_root)
    if _yaml_files(root) and (any(root.glob('**/labels')) or (root / 'images').is_dir()):
        raise FileNotFoundError(
            f'{root}: is in YOLO format; convert it with `hoyer-det convert-labels yolo {root} NEW` and '
            'train configs/hoyer_ssd_cocoformat.py with `--cfg-options data_root=NEW`'
        )


def find_yaml(source: str | Path) -> Path:
    """Return the YAML file of a data set, given itself or by its folder.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If there are several, and none is ``data.yaml``.
    """
    source = Path(source)
    if source.is_file():
        return source
    if not source.is_dir():
        raise FileNotFoundError(f'{source}: no such folder or YAML file')
    files = _yaml_files(source)
    named = [file for file in files if file.stem == 'data'] or files
    if not named:
        raise FileNotFoundError(
            f'{source}: has no data.yaml, which names the classes (names) and the images (train, val)'
        )
    if len(named) > 1:
        raise ValueError(
            f'{source}: has {", ".join(file.name for file in named)}; give one of these files instead of '
            'the folder'
        )
    return named[0]


def _yaml_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob('*.yaml'), *folder.glob('*.yml')])


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding='utf-8-sig'))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f'{file}: not a valid YAML file ({error})') from None
    for key in ('names', 'train', 'val'):
        if not isinstance(content, dict) or not content.get(key):
            raise ValueError(f'{file}: has no {key!r}; it must give names, train and val')
    return content


def _class_names(file: Path, content: dict[str, Any]) -> list[str]:
    names = content['names']
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f'{file}: the keys of names must be 0 to {len(names) - 1}')
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list):
        raise ValueError(f'{file}: names is {shorten(repr(names))}; it must be a list')
    for number, name in enumerate(names):
        if isinstance(name, bool):
            raise ValueError(
                f'{file}: names: class {number} is the truth value {name}, as YAML reads yes, no, on, off, '
                'true and false; put the name in quotes'
            )
    names = [str(name) if isinstance(name, int) else name for name in names]
    for number, name in enumerate(names):
        if name_fault(name):
            raise ValueError(f'{file}: names: the name of class {number} {name_fault(name)}')
        if name in names[:number]:
            raise ValueError(
                f'{file}: names: classes {names.index(name)} and {number} are both {name!r}'
            )
    if content.get('nc', len(names)) != len(names):
        raise ValueError(f'{file}: nc is {content["nc"]!r}, but names has {len(names)}')
    return names


def _keypoint_numbers(file: Path, content: dict[str, Any]) -> int:
    """Return how many numbers of keypoints follow each box, 0 where the labels are of no poses."""
    shape = content.get('kpt_shape')
    if shape is None:
        return 0
    if not (
        isinstance(shape, list)
        and len(shape) == 2
        and all(isinstance(number, int) and number > 0 for number in shape)
    ):
        raise ValueError(
            f'{file}: kpt_shape is {shorten(repr(shape))}; it must be [keypoints, numbers of each]'
        )
    return math.prod(shape)


def _root(file: Path, content: dict[str, Any]) -> Path:
    """Return the folder that the splits are relative to."""
    named = file.parent / str(content.get('path') or '')
    if named.is_dir():
        return named
    print(f'{file}: path {content["path"]} does not exist; {file.parent} is taken instead')
    return file.parent


def _images(file: Path, root: Path, split: str, entries: Any) -> list[Path]:
    """Return the images of a split: a folder, a list of images in a text file, or several of these."""
    images: list[Path] = []
    for entry in entries if isinstance(entries, list) else [entries]:
        if entry is None:
            continue
        path = root / str(entry)
        if not path.exists() and str(entry).startswith('../'):  # so Roboflow writes what is below
            path = root / str(entry)[3:]
        if path.is_dir():
            found = sorted(p for p in files_below(path) if p.suffix.lower() in _SUFFIXES)
        elif path.is_file():
            found = list(_listed(path, f'{file}: {split}'))
        elif split == 'test':
            print(f'{file}: test: {path} does not exist; left out')
            continue
        else:
            raise FileNotFoundError(f'{file}: {split}: {path} does not exist')
        if not found:
            raise FileNotFoundError(
                f'{file}: {split}: {path} has no images ({", ".join(_SUFFIXES)})'
            )
        images += found
    return list(dict.fromkeys(Path(os.path.abspath(image)) for image in images))


def _listed(file: Path, where: str) -> Iterator[Path]:
    try:
        lines = file.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{where}: {file} is neither a folder nor a list of images as text in UTF-8 ({error})'
        ) from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            path = file.parent / line.strip()
            if not path.is_file():
                raise FileNotFoundError(f'{file}, line {number}: {path} does not exist')
            yield path


def _write_split(
    folder: Path, split: str, images: list[Path], names: list[str], keypoints: int, copy: bool
) -> None:
    pictures = folder / f'{split}2017'
    common = Path(os.path.commonpath([image.parent for image in images]))
    listed, annotations, repeated = [], [], []
    for number, image in enumerate(tqdm(images, desc=split, unit='image'), 1):
        name = image.relative_to(common)
        target = pictures / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if copy:
            shutil.copyfile(image, target)
        else:
            target.symlink_to(image)
        width, height = seen_size(image)
        listed.append(dict(id=number, file_name=name.as_posix(), width=width, height=height))
        labels = list(read_labels(label_file(image), len(names), keypoints))
        objects = dict.fromkeys(labels)  # once each
        repeated += [label_file(image)] * (len(labels) - len(objects))
        for label, (x1, y1, x2, y2) in objects:
            box = [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=label + 1,
                    bbox=[round(value, 3) for value in box],
                    area=round(box[2] * box[3], 3),
                    iscrowd=0,
                )
            )
    if not annotations:
        raise ValueError(
            f'{split}: none of its {len(images)} images has an object, e.g. {images[0]}'
        )
    if repeated:
        print(
            f'{split}: {len(repeated)} lines repeat an object of their label file, each object is taken '
            f'once, e.g. in {repeated[0]}'
        )
    categories = [dict(id=number, name=name) for number, name in enumerate(names, 1)]
    file = folder / 'annotations' / f'instances_{split}2017.json'
    content = dict(images=listed, annotations=annotations, categories=categories)
    write_text(file, json.dumps(content, ensure_ascii=False) + '\n')


def _say_which_labels_are_left(splits: dict[str, list[Path]]) -> None:
    used = {label_file(image) for images in splits.values() for image in images}
    folders = {file.parent for file in used}
    found = {file for folder in folders for file in folder.glob('*.txt')}
    left = sorted(file for file in found - used if file.name != 'classes.txt')  # LabelImg's names
    if left:
        print(f'{len(left)} label files belong to no image of the splits, e.g. {left[0]}')


def label_file(image: Path) -> Path:
    """Return the label file of an image: the last folder ``images`` of its path becomes ``labels``."""
    parts = list(image.parts)
    if 'images' in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index('images')] = 'labels'
    return Path(*parts).with_suffix('.txt')


def read_labels(
    file: Path, classes: int, keypoints: int = 0
) -> Iterator[tuple[int, tuple[float, float, float, float]]]:
    """Yield the objects of a label file; none where it is missing.

    A line is the number of the class and a box (centre, width, height) or the corners of a polygon, of
    which the box around it is taken; all are fractions of width and height of the image. In a data set
    of poses it is the class, the box and the keypoints, which are left out.

    Args:
        file: Label file.
        classes: Number of classes.
        keypoints: How many numbers of keypoints follow each box.

    Yields:
        Number of the class and ``(x1, y1, x2, y2)`` as fractions.

    Raises:
        ValueError: Names file and line of a fault.
    """
    if not file.is_file():
        return
    for number, line in enumerate(file.read_text('utf-8-sig', 'replace').splitlines(), 1):
        if not line.strip():
            continue
        where = f'{file}, line {number}'
        try:
            label, *values = [float(word) for word in line.split()]
        except ValueError:
            raise ValueError(
                f'{where}: {shorten(line)!r} has something else than numbers'
            ) from None
        if keypoints:
            if len(values) != 4 + keypoints:
                raise ValueError(
                    f'{where}: has {1 + len(values)} numbers; expected are class, x, y, width, height and '
                    f'{keypoints} of keypoints (kpt_shape of the YAML file)'
                )
            values = values[:4]
        elif len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise ValueError(
                f'{where}: has {1 + len(values)} numbers; expected are class, x, y, width, height, or '
                'class and the corners of a polygon'
            )
        if label not in range(classes):
            raise ValueError(f'{where}: class {label:g}; the YAML file names 0 to {classes - 1}')
        outside = [value for value in values if not -_ROUNDING <= value <= 1 + _ROUNDING]
        if outside:
            raise ValueError(
                f'{where}: {outside[0]:.10g} does not lie in 0 to 1; values are fractions of the width and '
                'height of the image'
            )
        values = [min(max(value, 0.0), 1.0) for value in values]
        if len(values) == 4:
            x, y, width, height = values
            box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        else:
            xs, ys = values[::2], values[1::2]
            box = min(xs), min(ys), max(xs), max(ys)
        yield int(label), box
