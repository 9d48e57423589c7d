"""Looks at every annotation and image that a config names, and tells what is wrong with them."""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset, XMLDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from tqdm.contrib.concurrent import thread_map

from .completion import complete_splits, iterate_datasets, own_datasets
from .findings import Finding, coco_tasks, unlisted_faults, voc_tasks
from .voc_format import voc_folders

# Kinds that stop a training at its start, whose error would say the same again.
_STOP = {
    'annotation missing',
    'annotation unreadable',
    'empty line',
    'file unusable',
    'image empty',
    'image missing',
    'name',
    'object unreadable',
    'size of zero',
    'two images of one name',
    'unknown class',
}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a data set.

    Attributes:
        source: List of images (VOC) or annotation file (COCO) that names the image; the folder of an
            annotation (VOC) that no list names; the file that stops a training.
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
        annotations: Folder of the annotations (VOC).
        coco: Whether it is an annotation file in COCO format.
        trains: Whether it is trained on.
        evaluates: Whether it is evaluated.
        classes: Classes of the data set where they are given, else None.
        names: Names (VOC) or file names (COCO) of the images.
        boxes: How many boxes it has.
    """

    file: str
    root: str
    images: str
    annotations: str
    coco: bool
    trains: bool
    evaluates: bool
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
                dict(
                    file=s.file,
                    images=len(s.names),
                    boxes=s.boxes,
                    trains=s.trains,
                    evaluates=s.evaluates,
                )
                for s in self.sources
            ],
            problems=[vars(problem) for problem in self.problems],
        )


def check_datasets(cfg: Config, decode: bool = True, workers: int | None = None) -> Report:
    """Check all data sets of a config.

    Args:
        cfg: Config, not necessarily completed.
        decode: Whether to read and decode the images, too, and not the annotations alone.
        workers: Threads; as many as there are cores by default.

    Returns:
        Everything that is wrong, in the order of the lists and files.

    Raises:
        FileNotFoundError: If a folder, a list or an annotation file is missing.
        ValueError: If no data set of the config has a format that is known here.
    """
    sources = _sources(cfg)
    if not sources:
        raise ValueError('no data set in Pascal VOC layout or COCO format in this config')
    problems: list[Problem] = []
    digests: list[dict[str, str]] = []
    for source in sources:
        if source.coco:
            tasks, faults = coco_tasks(source.file, source.images, decode)
        else:
            folders = source.images, source.annotations
            tasks, faults = voc_tasks(source.file, *folders, source.classes, decode)
        problems += (Problem(source.file, name, *fault) for name, fault in faults)
        source.names = list(tasks)
        seen: dict[str, str] = {}
        findings = _run(list(tasks.values()), workers, source.file)
        counted = 0
        for name, (faults, boxes, good, digest) in zip(tasks, findings, strict=True):
            problems += (Problem(source.file, name, *fault) for fault in faults)
            source.boxes += boxes
            counted += good
            if digest:
                seen[name] = digest
        digests.append(seen)
        if source.evaluates and source.names and not counted:
            kind = 'box that is neither difficult nor a crowd' if source.boxes else 'box'
            detail = f'none of its {len(source.names)} images has a {kind}: mAP is 0 or -1'
            problems.append(Problem(source.file, '', 'no box to evaluate', detail))
    problems += _unlisted(sources)
    problems += _overlaps(sources, digests)
    if not any(problem.kind in _STOP for problem in problems):
        problems += _start(cfg)
    return Report(sources, problems)


def _sources(cfg: Config) -> list[Source]:
    """Return each list or annotation file of a config once."""
    own_datasets(cfg)
    known: dict[str, Source] = {}
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for dataset in iterate_datasets(cfg, (key,)):
            kind = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
            if not (isinstance(kind, type) and issubclass(kind, XMLDataset | CocoDataset)):
                continue
            if hasattr(kind, 'name_files'):
                kind.name_files(dataset)
            coco, root = issubclass(kind, CocoDataset), dataset.get('data_root') or ''
            if coco:
                images, annotations = (dataset.get('data_prefix') or {}).get('img', ''), ''
            else:
                images, annotations = voc_folders(dataset)
            classes = (dataset.get('metainfo') or kind.METAINFO).get('classes')
            classes = (classes,) if isinstance(classes, str) else classes
            file = os.path.join(root, dataset.ann_file)
            trains = key == 'train_dataloader'
            folders = os.path.join(root, images), str(Path(root, annotations))
            source = Source(file, root, *folders, coco, trains, False, classes)
            known.setdefault(file, source).evaluates |= not trains
    return list(known.values())


def _run(tasks: Sequence[Callable[[], Finding]], workers: int | None, title: str) -> list[Finding]:
    """Run tasks on all cores, with a bar of progress."""
    if workers is None:
        workers = (
            len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        )
    # Threads, as decoding lets them run; a process forked from one that has used OpenCV can hang.
    return thread_map(
        lambda task: task(), tasks, max_workers=workers, desc=Path(title).name, unit='img'
    )


def _unlisted(sources: list[Source]) -> Iterator[Problem]:
    """Yield what is wrong with annotations that no list names, where classes are read from all."""
    listed: dict[str, set[str]] = {}
    for source in sources:
        if not source.coco and source.classes is None:
            listed.setdefault(source.annotations, set()).update(source.names)
    for folder, names in listed.items():
        for name, fault in unlisted_faults(folder, names):
            yield Problem(folder, name, *fault)


def _start(cfg: Config) -> Iterator[Problem]:
    """Yield what stops training or evaluation at the start though each image is good by itself."""
    cfg = copy.deepcopy(cfg)
    splits = own_datasets(cfg)
    datasets = [dataset for split in splits.values() for dataset in split]
    try:
        if datasets:
            complete_splits(cfg, splits)
        for index, dataset in enumerate(datasets):
            if dataset not in datasets[:index]:
                DATASETS.build({**dataset, 'pipeline': []})
    except (OSError, ValueError) as error:
        file, _, detail = str(error).partition(': ')
        yield Problem(file, '', 'file unusable', detail)


def _overlaps(sources: list[Source], digests: list[dict[str, str]]) -> Iterator[Problem]:
    """Yield the images that are trained on and evaluated, by their paths or by their content.

    Args:
        sources: Lists and annotation files.
        digests: Digest of each image that was read, by its name, of each of them.
    """
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
        for name, digest in seen.items()
    }
    for source, seen in zip(sources, digests, strict=True):
        if not source.trains:
            continue
        paths = {name: os.path.normpath(os.path.join(source.images, name)) for name in source.names}
        for name in source.names:
            if paths[name] in evaluated:
                detail = f'is evaluated, too, by {evaluated[paths[name]]}'
                yield Problem(source.file, name, 'trained and evaluated', detail)
        for name, digest in seen.items():
            if digest in contents and paths[name] not in evaluated:
                other, twin = contents[digest]
                detail = f'is the same picture as {twin}, which {other.file} evaluates'
                yield Problem(source.file, name, 'trained and evaluated', detail)
