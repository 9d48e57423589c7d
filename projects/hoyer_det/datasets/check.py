"""Looks at every annotation and image that a config names, and tells what is wrong with them."""

import hashlib
import io
import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmdet.datasets import CocoDataset, XMLDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from PIL import Image
from tqdm import tqdm

from .coco_format import annotation_fault, read_annotations
from .completion import iterate_datasets, own_datasets
from .faults import box_fault, name_fault, shorten
from .image_size import size_fault
from .voc_format import find_image, object_box, object_name, without_namespaces


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a data set.

    Attributes:
        source: List of images (VOC) or annotation file (COCO) that names the image.
        image: Name (VOC) or file name (COCO) of the image, empty where the file itself is meant.
        kind: A few words that name the fault, the same for all of its kind.
        detail: What there is to say of this one.
        item: The box: its number in the annotation, from 0 (VOC), or its id (COCO); None where it is the
            image.
    """

    source: str
    image: str
    kind: str
    detail: str
    item: int | None = None


@dataclass
class Source:
    """A list of images or an annotation file, and what it names.

    Attributes:
        file: The list or the annotation file.
        root: ``data_root`` of the data set.
        images: Folder of the images.
        coco: Whether it is an annotation file in COCO format.
        trains: Whether it is trained on.
        classes: Classes of the data set where they are given, else None.
        names: Names (VOC) or file names (COCO) of the images.
        boxes: How many boxes it has.
    """

    file: str
    root: str
    images: str
    coco: bool
    trains: bool
    classes: tuple[str, ...] | None
    names: list[str] = field(default_factory=list)
    boxes: int = 0


@dataclass
class Report:
    """What was looked at and what was found."""

    sources: list[Source]
    problems: list[Problem]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return dict(
            sources=[
                dict(file=s.file, images=len(s.names), boxes=s.boxes, trains=s.trains)
                for s in self.sources
            ],
            problems=[vars(problem) for problem in self.problems],
        )


# What is found in one image: kind, detail and box of each fault; boxes; digest of the file.
_Finding = tuple[list[tuple[str, str, int | None]], int, str]


def check_datasets(cfg: Config, decode: bool = True, workers: int | None = None) -> Report:
    """Check all data sets of a config.

    Args:
        cfg: Config, not necessarily completed.
        decode: Whether to read and decode the images, too, and not the annotations alone.
        workers: Processes; as many as there are cores by default.

    Returns:
        Everything that is wrong, in the order of the lists and files.

    Raises:
        FileNotFoundError: If a folder, a list or an annotation file is missing.
        ValueError: If no data set of the config has a format that is known here.
    """
    sources = list(_sources(cfg))
    if not sources:
        raise ValueError('no data set in Pascal VOC layout or COCO format in this config')
    problems: list[Problem] = []
    digests: list[dict[str, str]] = []
    for source in sources:
        tasks, found = (_coco_tasks if source.coco else _voc_tasks)(source, decode)
        problems += found
        source.names = list(tasks)
        seen: dict[str, str] = {}
        findings = _run(list(tasks.values()), workers, source.file)
        for name, (faults, boxes, digest) in zip(tasks, findings, strict=True):
            problems += (Problem(source.file, name, *fault) for fault in faults)
            source.boxes += boxes
            if digest:
                seen.setdefault(digest, name)
        digests.append(seen)
    problems += _overlaps(sources, digests)
    return Report(sources, problems)


def _sources(cfg: Config) -> Iterator[Source]:
    """Yield each list or annotation file of a config once."""
    own_datasets(cfg)
    known = set()
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for dataset in iterate_datasets(cfg, (key,)):
            kind = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
            if not issubclass(kind, XMLDataset | CocoDataset):
                continue
            if hasattr(kind, 'name_files'):
                kind.name_files(dataset)
            coco, root = issubclass(kind, CocoDataset), dataset.get('data_root') or ''
            prefix = dataset.get('data_prefix') or {}
            images = (
                prefix.get('img', '')
                if coco
                else os.path.join(prefix.get('sub_data_root', ''), 'JPEGImages')
            )
            classes = (dataset.get('metainfo') or kind.METAINFO).get('classes')
            classes = (classes,) if isinstance(classes, str) else classes
            file = os.path.join(root, dataset.ann_file)
            if file not in known:
                known.add(file)
                trains = key == 'train_dataloader'
                yield Source(file, root, os.path.join(root, images), coco, trains, classes)


def _run(
    tasks: Sequence[Callable[[], _Finding]], workers: int | None, title: str
) -> list[_Finding]:
    """Run tasks on all cores, with a bar of progress."""
    if workers is None:
        workers = (
            len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        )
    bar = partial(tqdm, total=len(tasks), desc=Path(title).name, unit='img')
    if workers == 1 or len(tasks) < 2:
        return [task() for task in bar(tasks)]
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        return list(bar(pool.map(_call, tasks, chunksize=16)))


def _call(task: Callable[[], _Finding]) -> _Finding:
    return task()


def _voc_tasks(source: Source, decode: bool) -> tuple[dict[str, Callable], list[Problem]]:
    """Return a task for each image of a list, and what is wrong with the list."""
    if not Path(source.file).is_file():
        raise FileNotFoundError(f'{source.file}: this list of images does not exist')
    lines = [line.strip() for line in Path(source.file).read_text(encoding='utf-8').splitlines()]
    problems = []
    for name, count in Counter(lines).items():
        if not name:
            problems.append(Problem(source.file, '', 'empty line', f'{count} empty lines'))
        elif count > 1:
            detail = f'stands in the list {count} times'
            problems.append(Problem(source.file, name, 'listed twice', detail))
    names = dict.fromkeys(line for line in lines if line)
    return {name: partial(_check_voc, source, name, decode) for name in names}, problems


def _check_voc(source: Source, name: str, decode: bool) -> _Finding:
    faults: list[tuple[str, str, int | None]] = []
    path = find_image(source.images, name)
    annotation = Path(source.images).with_name('Annotations') / f'{name}.xml'
    boxes, declared = 0, None
    if not annotation.is_file():
        faults.append(('annotation missing', f'there is no {annotation}', None))
    else:
        try:
            root = without_namespaces(ET.parse(annotation).getroot())
            size = root.find('size')
            if size is not None:
                declared = tuple(int(size.findtext(key)) for key in ('height', 'width'))
        except (ET.ParseError, TypeError, ValueError) as error:
            faults.append(('annotation unreadable', f'{annotation}: {error}', None))
        else:
            objects = root.findall('object')
            boxes = len(objects)
            if declared is not None and min(declared) <= 0:
                detail = f'{annotation} says {declared[1]} x {declared[0]} pixels'
                faults.append(('size of zero', detail, None))
                declared = None
            for number, item in enumerate(objects):
                fault = _voc_object_fault(item, declared, source.classes)
                if fault is not None:
                    faults.append((*fault, number))
    faults_of_image, digest = _check_image(path, Path(source.images) / name, declared, decode)
    return faults + faults_of_image, boxes, digest


def _voc_object_fault(
    item: ET.Element, declared: tuple[int, int] | None, classes: Sequence[str] | None
) -> tuple[str, str] | None:
    name = object_name(item)
    if name_fault(name):
        return 'name', f'the name of a class {name_fault(name)}'
    if classes is not None and name not in classes:
        return 'unknown class', f'class {name!r} is not among those of the data set'
    try:
        box = object_box(item)
    except ValueError as error:
        return 'box unreadable', str(error)
    height, width = declared or (float('inf'), float('inf'))
    # MMDetection takes whole pixels and counts from 0.
    finite = all(map(np.isfinite, box))
    fault = box_fault([int(x) - 1 for x in box] if finite else box, width, height)
    return None if fault is None else (fault, f'{name} {", ".join(f"{x:g}" for x in box)}')


def _coco_tasks(source: Source, decode: bool) -> tuple[dict[str, Callable], list[Problem]]:
    """Return a task for each image file of an annotation file, and what is wrong with the file."""
    try:
        content, notes = read_annotations(source.file)
    except ValueError as error:
        detail = str(error).removeprefix(f'{source.file}: ')
        return {}, [Problem(source.file, '', 'file unusable', detail)]
    problems = [
        Problem(source.file, '', 'iscrowd', note) for note in notes if note.find('iscrowd') >= 0
    ]
    names = {category['id']: category['name'] for category in content['categories']}
    images: dict[str, list[dict]] = {}
    for image in content['images']:
        images.setdefault(image['file_name'], []).append(image)
    for name, same in images.items():
        if len(same) > 1:
            detail = f'has the ids {", ".join(str(image["id"]) for image in same)}'
            problems.append(Problem(source.file, name, 'one file, several ids', detail))
    annotations: dict[Any, list[dict]] = {}
    for annotation in content['annotations']:
        annotations.setdefault(annotation['image_id'], []).append(
            {
                **{key: annotation[key] for key in ('id', 'bbox', 'area')},
                'name': names[annotation['category_id']],
            }
        )
    tasks = {}
    for name, same in images.items():
        boxes = [box for image in same for box in annotations.get(image['id'], ())]
        size = (same[0]['height'], same[0]['width'])
        tasks[name] = partial(_check_coco, source.images, name, size, boxes, decode)
    return tasks, problems


def _check_coco(
    folder: str, name: str, size: tuple[int, int], boxes: list[dict], decode: bool
) -> _Finding:
    faults: list[tuple[str, str, int | None]] = []
    for box in boxes:
        fault = annotation_fault(box, size[1], size[0])
        if fault is not None:
            numbers = ', '.join(f'{x:g}' for x in box['bbox'])
            faults.append((fault, f'{box["name"]} {numbers}, area {box["area"]:g}', box['id']))
    path = Path(folder) / name
    faults_of_image, digest = _check_image(path if path.is_file() else None, path, size, decode)
    return faults + faults_of_image, len(boxes), digest


def _check_image(
    path: Path | None, wanted: Path, declared: tuple[int, int] | None, decode: bool
) -> tuple[list[tuple[str, str, None]], str]:
    """Return what is wrong with an image, and a digest of its file if it was read."""
    if path is None:
        return [('image missing', f'there is no {wanted}', None)], ''
    if path.stat().st_size == 0:
        return [('image empty', f'{path} has 0 bytes', None)], ''
    if not decode:
        return [], ''
    content = path.read_bytes()
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()  # notices a file that ends too early, of which OpenCV makes grey
    except Exception as error:  # Pillow raises many kinds
        return [('image unreadable', f'{path}: {shorten(str(error))}', None)], digest
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        return [('image unreadable', f'{path}: OpenCV cannot decode it', None)], digest
    fault = None if declared is None else size_fault(path, decoded.shape[:2], declared)
    return ([] if fault is None else [('other size', f'{path}: {fault}', None)]), digest


def _overlaps(sources: list[Source], digests: list[dict[str, str]]) -> Iterator[Problem]:
    """Yield the images that are trained on and evaluated, by their paths or by their content."""
    evaluated = {
        os.path.normpath(os.path.join(source.images, name)): source.file
        for source in sources
        if not source.trains
        for name in source.names
    }
    contents = {
        digest: (source, name)
        for source, seen in zip(sources, digests, strict=True)
        if not source.trains
        for digest, name in seen.items()
    }
    for source, seen in zip(sources, digests, strict=True):
        if not source.trains:
            continue
        paths = {name: os.path.normpath(os.path.join(source.images, name)) for name in source.names}
        for name in source.names:
            if paths[name] in evaluated:
                detail = f'is evaluated, too, by {evaluated[paths[name]]}'
                yield Problem(source.file, name, 'trained and evaluated', detail)
        for digest, name in seen.items():
            if digest in contents and paths[name] not in evaluated:
                other, twin = contents[digest]
                detail = f'is the same picture as {twin}, which {other.file} evaluates'
                yield Problem(source.file, name, 'trained and evaluated', detail)
