"""Writes a copy of a data set's annotations without what ``check-data`` found wrong."""

import json
import os
import shutil
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..files import write_text
from .check import Problem, Report, Source
from .coco_format import read_annotations
from .faults import name_fault
from .folders import new_folder
from .voc_format import (
    annotation_files,
    find_images,
    object_difficult,
    object_name,
    read_annotation,
)

# Problems that taking the image out would not mend, or that writing the file anew mends.
_NOT_OF_THE_IMAGE = ('empty line', 'listed twice', 'iscrowd', 'one file, several ids')


def write_clean(report: Report, folder: str | Path) -> Path:
    """Write lists and annotations without the boxes and images that have a problem.

    Of what is trained on and evaluated, the training loses the image. Images are not copied: each is
    linked to. Annotations (VOC) that no list names are copied where they can be read, as classes are
    read from them, too; classes that are lost all the same are printed. The folder appears when it is
    complete.

    Args:
        report: What :func:`hoyer_det.datasets.check.check_datasets` returned.
        folder: New folder, to be used as ``data_root`` in place of the old one.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder exists.
        ValueError: If the data sets and all their files do not lie below one ``data_root``, a file is
            unusable as a whole, or nothing would be left to train on or to evaluate.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f'{folder}: exists already; name a new folder')
    (root, *others) = dict.fromkeys(os.path.normpath(source.root) for source in report.sources)
    if others:
        raise ValueError(
            f'{folder}: data sets of one data_root are needed, not of {root}, {others[0]}'
        )
    for problem in report.problems:
        if problem.kind == 'file unusable':
            raise ValueError(f'{problem.source}: {problem.detail}; mend this first')
    with new_folder(folder) as temporary:
        for source in report.sources:
            problems = [p for p in report.problems if p.source == source.file]
            (_write_coco if source.coco else _write_voc)(source, problems, temporary)
        for old in _read_for_classes(report):
            new = _place(old, root, temporary)
            _copy_unlisted(old, new, report)
            lost = sorted(_class_names(old) - _class_names(new))
            if lost:
                print(f'{folder}: classes that no object is left of: {", ".join(lost)}')
    return folder


def _sort(problems: list[Problem]) -> tuple[set[str], dict[str, set[int]]]:
    """Return the images to take out, and the boxes to take out of the others."""
    images, boxes = set(), defaultdict(set)
    for problem in problems:
        if problem.item is not None:
            boxes[problem.image].add(problem.item)
        elif problem.kind not in _NOT_OF_THE_IMAGE:
            images.add(problem.image)
    return images, boxes


def _write_voc(source: Source, problems: list[Problem], folder: Path) -> None:
    images, boxes = _sort(problems)
    target = _place(source.file, source.root, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = [name for name in source.names if name not in images]
    for name in filter(os.path.isabs, kept):  # whose annotation would be written in its own place
        raise ValueError(
            f'{source.file}: names {name} by its whole path; a clean copy needs names below '
            f'{source.images}'
        )
    target.write_text(''.join(f'{name}\n' for name in kept), encoding='utf-8')
    _link((find_images(source.images, name)[0] for name in kept), source, folder)
    old = Path(source.annotations)
    left = 0
    for name in kept:
        file = old / f'{name}.xml'
        copy = _place(file, source.root, folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        root = read_annotation(file)
        items = root.findall('object')
        left += sum(
            number not in boxes[name] and not (source.evaluates and object_difficult(item))
            for number, item in enumerate(items)
        )
        if not boxes[name]:
            shutil.copyfile(file, copy)
            continue
        for number, item in enumerate(items):
            if number in boxes[name]:
                root.remove(item)
        ET.ElementTree(root).write(copy, encoding='utf-8')
    _refuse_nothing(source, kept, left)


def _write_coco(source: Source, problems: list[Problem], folder: Path) -> None:
    images, boxes = _sort(problems)
    faulty = set().union(*boxes.values())
    content, _ = read_annotations(source.file)
    ids: dict[str, object] = {}  # file name -> the id that stays
    moved = {}
    for image in content['images']:
        if image['file_name'] not in images:
            moved[image['id']] = ids.setdefault(image['file_name'], image['id'])
    content['images'] = [i for i in content['images'] if moved.get(i['id'], object()) == i['id']]
    content['annotations'] = [
        {**annotation, 'image_id': moved[annotation['image_id']]}
        for annotation in content['annotations']
        if annotation['image_id'] in moved and annotation['id'] not in faulty
    ]
    counted = [a for a in content['annotations'] if not (source.evaluates and a['iscrowd'])]
    _refuse_nothing(source, content['images'], counted)
    target = _place(source.file, source.root, folder)
    write_text(target, json.dumps(content, ensure_ascii=False))
    names = (image['file_name'] for image in content['images'])
    # An absolute name holds in the new folder as it is.
    _link((Path(source.images, name) for name in names if not os.path.isabs(name)), source, folder)


def _refuse_nothing(source: Source, images: object, boxes: object) -> None:
    """Make sure that something is left of a list or file."""
    if not (images and boxes):
        raise ValueError(
            f'{source.file}: no {"box" if images else "image"} would be left; mend this first'
        )


def _read_for_classes(report: Report) -> list[Path]:
    """Return the folders of annotations (VOC) that classes are read from."""
    folders = (Path(s.annotations) for s in report.sources if not s.coco and s.classes is None)
    return list(dict.fromkeys(folders))


def _copy_unlisted(old: Path, new: Path, report: Report) -> None:
    """Copy the annotations of a folder that no list names, but for faulty ones."""
    listed = {name for s in report.sources if s.annotations == str(old) for name in s.names}
    faulty = {problem.image for problem in report.problems if problem.source == str(old)}
    for file in annotation_files(old):
        name = file.relative_to(old).with_suffix('').as_posix()
        if name not in listed | faulty:
            copy = new / file.relative_to(old)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def _class_names(folder: Path) -> set[str]:
    """Return the classes of all annotations below a folder that can be read."""
    names = set()
    for file in annotation_files(folder):
        with suppress(ValueError):
            names.update(map(object_name, read_annotation(file).iter('object')))
    return {name for name in names if not name_fault(name)}


def _link(images: Iterable[Path], source: Source, folder: Path) -> None:
    """Link to images from their places in the new folder."""
    for image in images:
        link = _place(image, source.root, folder)
        if not link.is_symlink():  # by another list
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(image.resolve())
    # File names such as ../a.jpg need it, though no image is in it.
    _place(Path(source.images), source.root, folder).mkdir(parents=True, exist_ok=True)


def _place(path: str | Path, root: str, folder: Path) -> Path:
    """Return the place in the new folder of what lies below the old one."""
    relative = os.path.relpath(path, root)
    if relative.split(os.sep)[0] == '..':
        raise ValueError(f'{path}: lies outside {root}; a clean copy has only what is below it')
    return folder / relative
