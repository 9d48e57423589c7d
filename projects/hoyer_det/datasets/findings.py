"""What is wrong with one image and its annotation: the rules of ``check-data``, image by image."""

import hashlib
import io
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from .coco_format import annotation_fault, read_annotations
from .faults import box_fault, name_fault, shorten
from .image_size import size_fault
from .voc_format import (
    annotation_files,
    find_images,
    object_box,
    object_difficult,
    object_name,
    read_annotation,
    read_list,
)

# A fault: its kind, what there is to say, and the box that has it, None where it is the image.
Fault = tuple[str, str, int | None]
# What is found in one image: its faults, its number of boxes, how many of them an evaluation counts (no
# crowds, none that is difficult), and a digest of its file if it was read.
Finding = tuple[list[Fault], int, int, str]
# The images of a list or file, each with what looks at it; and the faults of the list, by image.
Tasks = tuple[dict[str, Callable[[], Finding]], list[tuple[str, Fault]]]


def voc_tasks(
    file: str, images: str, annotations: str, classes: Sequence[str] | None, decode: bool
) -> Tasks:
    """Read a list of images in Pascal VOC layout.

    Args:
        file: The list.
        images: Folder of the images.
        annotations: Folder of the annotations.
        classes: Classes of the data set where they are given, else None.
        decode: Whether to read the images.

    Raises:
        FileNotFoundError: If there is no such list.
        ValueError: If it is no text.
    """
    lines = read_list(file)
    faults: list[tuple[str, Fault]] = []
    for name, count in Counter(lines).items():
        if not name:
            faults.append(('', ('empty line', f'{count} empty lines', None)))
        elif count > 1:
            faults.append((name, ('listed twice', f'stands in the list {count} times', None)))
    names = dict.fromkeys(line for line in lines if line)
    check = partial(_check_voc, images, annotations, classes, decode)
    return {name: partial(check, name) for name in names}, faults


def unlisted_faults(folder: str | Path, listed: Set[str]) -> Iterator[tuple[str, Fault]]:
    """Yield the faults, by image, of annotations that no list names: classes are read from them, too.

    Args:
        folder: Folder of the annotations.
        listed: Names of the images that lists name.
    """
    for file in annotation_files(folder):
        name = file.relative_to(folder).with_suffix('').as_posix()
        if name in listed:
            continue
        try:
            names = {object_name(item) for item in read_annotation(file).iter('object')} - {''}
        except ValueError as error:
            yield name, ('annotation unreadable', f'{error}; no list names it', None)
            continue
        for fault in filter(None, map(name_fault, sorted(names))):
            yield (
                name,
                ('name', f'{file}: the name of a class {fault}; no list names the file', None),
            )


def _check_voc(
    images: str, annotations: str, classes: Sequence[str] | None, decode: bool, name: str
) -> Finding:
    root, declared, faults = _read_voc(Path(annotations, f'{name}.xml'))
    paths = find_images(images, name)
    if len(paths) > 1:
        detail = f'there are {paths[0]} and {paths[1].name}'
        faults.append(('two images of one name', detail, None))
    path = paths[0] if paths else None
    faults_of_image, digest, decoded = _check_image(path, Path(images) / name, declared, decode)
    objects = [] if root is None else root.findall('object')
    counted = 0
    for number, item in enumerate(objects):
        fault = _voc_object_fault(item, declared or decoded, classes)
        if fault is not None:
            faults.append((*fault, number))
        unreadable = fault is not None and fault[0] == 'object unreadable'
        counted += not unreadable and not object_difficult(item)
    return faults + faults_of_image, len(objects), counted, digest


def _read_voc(file: Path) -> tuple[ET.Element | None, tuple[int, int] | None, list[Fault]]:
    """Return an annotation, the height and width that it declares, and what is wrong with both."""
    if not file.is_file():
        return None, None, [('annotation missing', f'there is no {file}', None)]
    declared = None
    try:
        root = read_annotation(file)
        size = root.find('size')
        if size is not None:
            declared = tuple(int(size.findtext(key)) for key in ('height', 'width'))
    except (TypeError, ValueError) as error:
        detail = f'{file}: {str(error).removeprefix(f"{file}: ")}'
        return None, None, [('annotation unreadable', detail, None)]
    if declared is not None and min(declared) <= 0:
        detail = f'{file} says {declared[1]} x {declared[0]} pixels'
        return root, None, [('size of zero', detail, None)]
    return root, declared, []


def _voc_object_fault(
    item: ET.Element, size: tuple[int, int] | None, classes: Sequence[str] | None
) -> tuple[str, str] | None:
    name = object_name(item)
    if name_fault(name):
        return 'name', f'the name of a class {name_fault(name)}'
    if classes is not None and name not in classes:
        return 'unknown class', f'class {name!r} is not among those of the data set'
    try:
        box = object_box(item)
        object_difficult(item)
    except ValueError as error:
        return 'object unreadable', str(error)
    height, width = size or (float('inf'), float('inf'))
    # MMDetection takes whole pixels and counts from 0.
    finite = all(map(np.isfinite, box))
    fault = box_fault([int(x) - 1 for x in box] if finite else box, width, height)
    return None if fault is None else (fault, f'{name} {", ".join(f"{x:g}" for x in box)}')


def coco_tasks(file: str, images: str, decode: bool) -> Tasks:
    """Read an annotation file in COCO format; one that cannot be used has one fault and no images.

    Args:
        file: The annotation file.
        images: Folder of the images.
        decode: Whether to read the images.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    try:
        content, notes = read_annotations(file)
    except ValueError as error:
        return {}, [('', ('file unusable', str(error).removeprefix(f'{file}: '), None))]
    faults: list[tuple[str, Fault]] = [
        ('', ('iscrowd', note, None)) for note in notes if 'iscrowd' in note
    ]
    names = {category['id']: category['name'] for category in content['categories']}
    entries: dict[str, list[dict]] = {}
    for image in content['images']:
        entries.setdefault(image['file_name'], []).append(image)
    for name, same in entries.items():
        if len(same) > 1:
            detail = f'has the ids {", ".join(str(image["id"]) for image in same)}'
            faults.append((name, ('one file, several ids', detail, None)))
    annotations: dict[Any, list[dict]] = {}
    for annotation in content['annotations']:
        annotations.setdefault(annotation['image_id'], []).append(
            {
                **{key: annotation[key] for key in ('id', 'bbox', 'area', 'iscrowd')},
                'name': names[annotation['category_id']],
            }
        )
    tasks = {}
    for name, same in entries.items():
        boxes = [box for image in same for box in annotations.get(image['id'], ())]
        size = (same[0]['height'], same[0]['width'])
        tasks[name] = partial(_check_coco, images, name, size, boxes, decode)
    return tasks, faults


def _check_coco(
    folder: str, name: str, size: tuple[int, int], boxes: list[dict], decode: bool
) -> Finding:
    faults: list[Fault] = []
    counted = sum(not box['iscrowd'] for box in boxes)
    for box in boxes:
        fault = annotation_fault(box, size[1], size[0])
        if fault is not None:
            numbers = ', '.join(f'{x:g}' for x in box['bbox'])
            faults.append((fault, f'{box["name"]} {numbers}, area {box["area"]:g}', box['id']))
    path = Path(folder) / name
    faults_of_image, digest, _ = _check_image(path if path.is_file() else None, path, size, decode)
    return faults + faults_of_image, len(boxes), counted, digest


def _check_image(
    path: Path | None, wanted: Path, declared: tuple[int, int] | None, decode: bool
) -> tuple[list[Fault], str, tuple[int, int] | None]:
    """Return what is wrong with an image, and if it was read a digest of its file, height and width."""
    if path is None:
        return [('image missing', f'there is no {wanted}', None)], '', None
    if path.stat().st_size == 0:
        return [('image empty', f'{path} has 0 bytes', None)], '', None
    if not decode:
        return [], '', None
    content = path.read_bytes()
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()  # notices a file that ends too early, of which OpenCV makes grey
    except Exception as error:  # Pillow raises many kinds
        return [('image unreadable', f'{path}: {shorten(str(error))}', None)], digest, None
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        return [('image unreadable', f'{path}: OpenCV cannot decode it', None)], digest, None
    size = decoded.shape[:2]
    fault = None if declared is None else size_fault(path, size, declared)
    return ([] if fault is None else [('other size', f'{path}: {fault}', None)]), digest, size
