"""The embedded sample data set: rotated shapes on clutter, written in Pascal VOC layout."""

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from ..files import write_json, write_text
from .folders import new_folder

SHAPE_CLASSES: tuple[str, ...] = ('circle', 'square', 'triangle', 'star', 'cross', 'ring')

FORMAT_VERSION = 1  # raise whenever the same arguments would give other images or boxes
STAMP = 'shapes.json'
MAX_OBJECTS = 4
SIDE_RANGE = (0.22, 0.55)  # longer side of the unclipped box, as a fraction of the image
MIN_VISIBLE = 0.6  # part of a shape's area that neither the border nor another shape may hide
MIN_CONTRAST = 110.0  # Euclidean RGB distance of a fill to what lies under it
RING_HOLE, STAR_INNER, CROSS_ARM = 0.55, 0.42, 0.32  # as a fraction of the outer radius or arm
SUPERSAMPLE = 4
JPEG_QUALITY = 92
_LOWEST = {'num_train': 2, 'num_test': 1, 'image_size': 64, 'seed': 0}  # of the arguments


class ShapeObject(NamedTuple):
    """One drawn shape; ``box`` holds the first and last touched pixel ``(x1, y1, x2, y2)``."""

    name: str
    box: tuple[int, int, int, int]
    truncated: bool
    occluded: bool
    difficult: bool = False


def generate_shapes(
    root: str | Path,
    num_train: int = 480,
    num_test: int = 120,
    image_size: int = 128,
    seed: int = 0,
) -> Path:
    """Write the sample data set below ``root``, or return at once if it is already there.

    Layout: ``JPEGImages/*.jpg``, ``Annotations/*.xml`` and ``ImageSets/Main/{trainval,test}.txt``.

    Boxes are tight around the whole shape, also where another shape covers it, clipped to the
    image. They are the first and last touched pixel, counted from 1.

    An image depends on ``seed``, ``image_size``, its split and its number alone. The set is
    built in a temporary sibling folder and renamed at the end, so several processes may call
    this at once and a half-written set never appears.

    Args:
        root: Folder of the data set; absent, empty, or a finished set of the same arguments.
        num_train: Images in ``trainval``, at least 2.
        num_test: Images in ``test``, at least 1.
        image_size: Side of the square images in pixels, at least 64.
        seed: Seed of the generator, at least 0.

    Returns:
        ``root`` as a path.

    Raises:
        ValueError: An argument is out of range, or ``root`` holds a set of other arguments or
            one with files missing.
        FileExistsError: ``root`` is a file, or a folder with other content.
    """
    arguments = dict(num_train=num_train, num_test=num_test, image_size=image_size, seed=seed)
    for key, value in arguments.items():
        if not isinstance(value, int) or value < _LOWEST[key]:
            raise ValueError(f'{key} must be an integer of at least {_LOWEST[key]}, got {value!r}')
    root = Path(root)
    stamp = {'format_version': FORMAT_VERSION, **arguments}
    if _is_complete(root, stamp):
        return root

    target = root.resolve()  # rename would replace a symbolic link, not the folder behind it
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with new_folder(target) as temporary:
            _write_dataset(temporary, **arguments)
            write_json(temporary / STAMP, stamp)
    except OSError:
        if not _is_complete(root, stamp):  # else another process was faster
            raise
    return root


def stamped_arguments(root: str | Path) -> dict[str, int]:
    """Return the arguments of ``generate_shapes`` that a set was made with.

    Args:
        root: Folder of the data set.

    Returns:
        ``num_train``, ``num_test``, ``image_size`` and ``seed``; nothing where there is no set or its stamp
        lacks one of them, which ``generate_shapes`` reports.
    """
    try:
        stamp = json.loads((Path(root) / STAMP).read_text(encoding='utf-8'))
        return {key: stamp[key] for key in _LOWEST}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _is_complete(root: Path, stamp: dict[str, int]) -> bool:
    """Tell a finished set from an absent or empty folder; raise on anything else."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise FileExistsError(f'{root} is a file; name a folder for the shapes data set')
    if not (root / STAMP).is_file():
        if any(root.iterdir()):
            raise FileExistsError(
                f'{root} is not empty and has no {STAMP}; choose another folder or empty it'
            )
        return False
    try:
        found = dict(json.loads((root / STAMP).read_text(encoding='utf-8')))
    except (ValueError, TypeError) as error:
        raise ValueError(f'{root / STAMP} is unreadable ({error}); delete {root}') from error
    differing = [
        f'{key} is {found.get(key)}, asked for {stamp.get(key)}'
        for key in sorted(stamp.keys() | found.keys())
        if found.get(key) != stamp.get(key)
    ]
    if differing:
        raise ValueError(
            f'{root} holds a shapes data set of other arguments ({"; ".join(differing)}); '
            'choose another folder or delete it'
        )
    expected = stamp['num_train'] + stamp['num_test']
    for pattern in ('JPEGImages/*.jpg', 'Annotations/*.xml'):
        files = list(root.glob(pattern))
        if len(files) < expected:
            raise ValueError(
                f'{root} has {len(files)} of {expected} files {pattern}; delete {root}'
            )
        empty = [file for file in files if file.stat().st_size == 0]
        if empty:
            raise ValueError(f'{min(empty)} is empty; delete {root}')
    return True


def _write_dataset(root: Path, num_train: int, num_test: int, image_size: int, seed: int) -> None:
    """Render all images and write their annotations below the new folder ``root``."""
    for folder in ('JPEGImages', 'Annotations'):
        (root / folder).mkdir(parents=True)
    with tqdm(total=num_train + num_test, desc='Generating shapes', unit='img') as progress:
        for split_key, (split, count) in enumerate((('trainval', num_train), ('test', num_test))):
            names = []
            for index in range(count):
                rng = np.random.default_rng([seed, split_key, index])
                image, objects = _render_image(rng, image_size)
                name = f'{split}_{index:06d}'
                jpeg = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
                (root / 'JPEGImages' / f'{name}.jpg').write_bytes(jpeg.tobytes())
                _write_voc(root / 'Annotations' / f'{name}.xml', objects, image_size)
                names.append(name)
                progress.update()
            write_text(
                root / 'ImageSets' / 'Main' / f'{split}.txt', ''.join(f'{name}\n' for name in names)
            )


def _write_voc(path: Path, objects: list[ShapeObject], image_size: int) -> None:
    """Write one VOC annotation; pixels are counted from 1, last pixel included."""
    root = ET.Element('annotation')
    ET.SubElement(root, 'folder').text = 'JPEGImages'
    ET.SubElement(root, 'filename').text = f'{path.stem}.jpg'
    _add_numbers(root, 'size', {'width': image_size, 'height': image_size, 'depth': 3})
    for item in objects:
        element = ET.SubElement(root, 'object')
        ET.SubElement(element, 'name').text = item.name
        ET.SubElement(element, 'pose').text = 'Unspecified'
        for key in ('truncated', 'difficult', 'occluded'):
            ET.SubElement(element, key).text = str(int(getattr(item, key)))
        corners = zip(('xmin', 'ymin', 'xmax', 'ymax'), item.box, strict=True)
        _add_numbers(element, 'bndbox', {key: value + 1 for key, value in corners})
    ET.indent(root)
    path.write_text(ET.tostring(root, encoding='unicode') + '\n', encoding='utf-8')


def _add_numbers(parent: ET.Element, tag: str, numbers: dict[str, int]) -> None:
    """Append an element that holds one child per number."""
    element = ET.SubElement(parent, tag)
    for key, value in numbers.items():
        ET.SubElement(element, key).text = str(value)


def _render_image(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[ShapeObject]]:
    """Draw one image, uint8 of shape (size, size, 3), with 1 to 4 shapes."""
    canvas = _draw_background(rng, size)
    fills: list[np.ndarray] = []
    drawn: list[tuple[str, np.ndarray, float]] = []  # class, coverage in the image, full area
    visible: list[np.ndarray] = []
    for number in range(int(rng.integers(1, MAX_OBJECTS + 1))):
        name = SHAPE_CLASSES[rng.integers(len(SHAPE_CLASSES))]
        # The first shape always finds a place; a later one is dropped where the image is full.
        for _ in range(30 if number else 1000):
            side = size * math.exp(rng.uniform(*np.log(SIDE_RANGE)))
            centre = rng.uniform(0.35 * side, size - 0.35 * side, 2).tolist()
            outline = rng.uniform(0.02, 0.045) * side if rng.random() < 0.5 else 0.0
            patches, corner = draw_shape(name, side, rng.uniform(0, 360), centre, outline)
            mask, inner = (_place(patch, corner, size) for patch in patches)
            full_area = float(patches[0].sum())
            remaining = [v * (1 - mask) for v in visible]
            parts = [mask.sum() / full_area]
            parts += [v.sum() / area for v, (_, _, area) in zip(remaining, drawn, strict=True)]
            if min(parts) >= MIN_VISIBLE:
                break
        else:
            continue
        under = (canvas * mask[..., None]).sum((0, 1)) / mask.sum()
        fill, edge = (_contrasting(rng, [under, *fills]) for _ in range(2))
        for cover, colour in ((mask, edge), (inner, fill)):
            canvas += cover[..., None] * (colour - canvas)
        fills.append(fill)
        drawn.append((name, mask, full_area))
        visible = [*remaining, mask]

    canvas = (canvas - 128) * rng.uniform(0.7, 1.15) + 128 + rng.uniform(-25, 25)
    canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.2, 0.7) * size / 160)
    canvas += rng.normal(0, rng.uniform(0, 7), canvas.shape)
    objects = []
    for (name, mask, full_area), seen in zip(drawn, visible, strict=True):
        area = float(mask.sum())
        truncated, occluded = area < 0.99 * full_area, float(seen.sum()) < 0.99 * area
        objects.append(ShapeObject(name, _touched_box(mask), truncated, occluded))
    return canvas.clip(0, 255).round().astype(np.uint8), objects


def draw_shape(
    name: str, side: float, angle: float, centre: Sequence[float], outline: float = 0.0
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[int, int]]:
    """Draw the coverage of one shape, anti-aliased.

    Args:
        name: One of ``SHAPE_CLASSES``.
        side: Longer side of the shape's box in pixels.
        angle: Rotation in degrees.
        centre: Centre ``(x, y)`` of the box in the image, in pixels.
        outline: Width in pixels of an outline inside the shape.

    Returns:
        Two float32 patches of coverage in [0, 1], each of shape (P, P): the whole shape, and the
        shape without its outline; and the image position ``(x, y)`` of the patches' first pixel.
    """
    turn = math.radians(angle)
    cos, sin = math.cos(turn), math.sin(turn)
    path = _unit_path(name) @ np.array([[cos, sin], [-sin, cos]])
    low, high = path.min(0), path.max(0)
    path = (path - (low + high) / 2) * (side / (high - low).max())
    paths = [path]
    if name == 'ring':
        paths.append(path * RING_HOLE)  # fillPoly leaves what two paths enclose empty
    patch_size = math.ceil(side) + 4
    corner = np.floor(np.asarray(centre) - patch_size / 2).astype(int)
    shift = np.asarray(centre) - corner
    fraction_bits = 4  # of fillPoly's fixed-point numbers, which count from pixel centres
    vertices = [
        np.round(((p + shift) * SUPERSAMPLE - 0.5) * 2**fraction_bits).astype(np.int32)
        for p in paths
    ]
    whole = np.zeros((patch_size * SUPERSAMPLE,) * 2, np.float32)
    cv2.fillPoly(whole, vertices, 1.0, shift=fraction_bits)
    reach = round(outline * SUPERSAMPLE)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    whole, inner = (
        cv2.resize(patch, (patch_size, patch_size), interpolation=cv2.INTER_AREA)
        for patch in (whole, cv2.erode(whole, disc))
    )
    return (whole, inner), (int(corner[0]), int(corner[1]))


def _unit_path(name: str) -> np.ndarray:
    """Give the outer vertices ``(x, y)`` of a class, centred at 0."""
    if name == 'cross':
        arm = np.array([[1, -CROSS_ARM], [1, CROSS_ARM], [CROSS_ARM, CROSS_ARM]])
        quarter_turn = np.array([[0, 1], [-1, 0]])
        return np.concatenate([arm @ np.linalg.matrix_power(quarter_turn, k) for k in range(4)])
    count = {'circle': 72, 'ring': 72, 'square': 4, 'triangle': 3, 'star': 10}[name]
    radius = np.where(np.arange(count) % 2, STAR_INNER if name == 'star' else 1.0, 1.0)
    angles = np.arange(count) * 2 * np.pi / count
    return radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)


def _place(patch: np.ndarray, corner: tuple[int, int], size: int) -> np.ndarray:
    """Copy a patch to its position in an empty image, cut at the border."""
    image = np.zeros((size, size), np.float32)
    x, y = corner
    part = patch[max(0, -y) : size - y, max(0, -x) : size - x]
    image[max(0, y) : y + patch.shape[0], max(0, x) : x + patch.shape[1]] = part
    return image


def _touched_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Give the first and last column and row that a mask visibly covers."""
    touched = mask > 0.1
    columns, rows = np.flatnonzero(touched.any(0)), np.flatnonzero(touched.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _contrasting(rng: np.random.Generator, others: list[np.ndarray]) -> np.ndarray:
    """Draw a random colour away from all others, or the farthest of 16 where none is."""
    colours = rng.uniform(0, 255, (16, 3))
    distances = np.linalg.norm(colours[:, None] - np.stack(others), axis=-1).min(1)
    return colours[np.argmax(np.minimum(distances, MIN_CONTRAST))]


def _draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a gradient with texture, lines, arcs and specks; float32 of shape (size, size, 3)."""
    start, end = rng.uniform(30, 225, (2, 1, 1, 3))
    turn = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / size - 0.5
    ramp = (x * math.cos(turn) + y * math.sin(turn) + 0.7)[..., None] / 1.4
    canvas = start + ramp * (end - start)
    for cells in (5, 20):  # coarse blotches and a finer grain
        coarse = rng.normal(0, rng.uniform(0, 10), (cells, cells, 3))
        canvas += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    canvas = canvas.astype(np.float32)
    for kind, most in (('line', 4), ('arc', 3), ('speck', 10)):
        for _ in range(int(rng.integers(0, most + 1))):
            colour = rng.uniform(0, 255, 3).tolist()
            width = int(rng.integers(1, 2 + size // 80))
            first, second = rng.integers(0, size, (2, 2)).tolist()
            if kind == 'line':
                cv2.line(canvas, first, second, colour, width, cv2.LINE_AA)
                continue
            # An arc stays far from closing, a speck far below the smallest shape.
            axes = rng.uniform(0.1, 0.4, 2) if kind == 'arc' else rng.uniform(0.006, 0.02, 2)
            axes = np.maximum(1, axes * size).astype(int).tolist()
            span, thickness = (rng.uniform(40, 150), width) if kind == 'arc' else (360, -1)
            tilt = rng.uniform(0, 360)
            cv2.ellipse(canvas, first, axes, tilt, 0, span, colour, thickness, cv2.LINE_AA)
    return canvas
