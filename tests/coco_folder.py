"""A miniature data set in COCO format, with what real files of that format have."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# Neither contiguous, nor in the order of the file, nor is any order that of the alphabet.
CATEGORIES = ((7, 'ring'), (3, 'Zelle ä'), (12, 'dot'))
CLASSES = ('Zelle ä', 'ring', 'dot')
# Of each image: file below the folder of images, and (category id, box, iscrowd) of its objects.
IMAGES = (
    ('left/a.jpg', [(3, [10, 20, 50, 50], 0), (7, [30, 5, 60, 45], 0)]),
    ('right/b.jpg', [(12, [4, 4, 30, 20], 0), (3, [40, 10, 50, 60], 1)]),
    ('empty.jpg', []),
    ('crowd.jpg', [(7, [0, 0, 96, 80], 1)]),
    ('c.png', [(7, [20.5, 20.5, 40, 40], 0), (12, [50, 50, 0.5, 20], 0)]),
)


def write_coco(root: Path, split: str, seed: int = 0) -> Path:
    """Write five noisy images of 96 x 80 pixels and their annotations; return the latter's file."""
    draw = np.random.default_rng(seed)
    images, annotations = [], []
    for number, (name, objects) in enumerate(IMAGES):
        file = root / split / name
        file.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(file), draw.integers(0, 255, (80, 96, 3), np.uint8))
        images.append(dict(id=10 * number + 5, file_name=name, width=96, height=80))
        for category, box, crowd in objects:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=images[-1]['id'],
                    category_id=category,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=crowd,
                )
            )
    file = root / 'annotations' / f'instances_{split}.json'
    file.parent.mkdir(exist_ok=True)
    categories = [dict(id=number, name=name) for number, name in CATEGORIES]
    content = dict(images=images, annotations=annotations, categories=categories)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')
    return file


def write_coco_folder(root: Path) -> Path:
    """Write such data in the layout of COCO 2017; return its folder."""
    for seed, split in enumerate(('train2017', 'val2017')):
        write_coco(root, split, seed)
    return root


def change(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit what a file of annotations says."""
    content = json.loads(file.read_text(encoding='utf-8'))
    edit(content)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')
