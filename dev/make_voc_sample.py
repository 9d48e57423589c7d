"""Make ``voc_sample``, the photographs of docs/learning.md, from Pascal VOC 2007.

    python tools/download_data.py voc2007
    python dev/make_voc_sample.py data/VOCdevkit/VOC2007 data/voc_sample

4452 photographs of its test set with the split of ``dev/voc_sample/``, the long side scaled to 320 px.
"""

import argparse
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2

LONG_SIDE = 320
SPLITS = Path(__file__).parent / 'voc_sample'


def make_sample(source: Path, out: Path, splits: Path = SPLITS) -> None:
    """Write the images of the split, scaled, with their annotations and lists.

    Args:
        source: Folder of Pascal VOC 2007 with its test set.
        out: Folder to write, which must not exist.
        splits: Folder with ``trainval.txt`` and ``test.txt``.

    Raises:
        OSError: If ``out`` exists, or a file is missing.
    """
    lists = {file.name: file.read_text().split() for file in sorted(splits.glob('*.txt'))}
    for name in (name for names in lists.values() for name in names):
        for file in (_image(source, name), _annotation(source, name)):
            if not file.is_file():
                raise FileNotFoundError(
                    f'{file}: no such file; `python tools/download_data.py voc2007` gets it'
                )
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (out / folder).mkdir(parents=True)
    for file, names in lists.items():
        for name in names:
            _scale(source, out, name)
        (out / 'ImageSets' / 'Main' / file).write_text('\n'.join(names) + '\n')


def _scale(source: Path, out: Path, name: str) -> None:
    image = cv2.imread(str(_image(source, name)))
    height, width = image.shape[:2]
    factor = LONG_SIDE / max(height, width)
    size = round(width * factor), round(height * factor)
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(_image(out, name)), scaled)
    tree = ET.parse(_annotation(source, name))
    for item in tree.iterfind('object'):
        for part in item.findall('part'):  # heads and hands
            item.remove(part)
    for axis, before, after in zip('xy', (width, height), size, strict=True):
        tree.find(f'size/{"width" if axis == "x" else "height"}').text = str(after)
        for box in tree.iterfind('object/bndbox'):
            # VOC counts pixels from 1, and its boxes end with the last pixel inside.
            for end, offset in (('min', 1), ('max', 0)):
                value = box.find(axis + end)
                place = (float(value.text) - offset) * after / before + offset
                value.text = f'{place:.1f}'
    tree.write(_annotation(out, name))


def _image(folder: Path, name: str) -> Path:
    return folder / 'JPEGImages' / f'{name}.jpg'


def _annotation(folder: Path, name: str) -> Path:
    return folder / 'Annotations' / f'{name}.xml'


def main() -> None:
    """Make the sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', type=Path, help='folder VOCdevkit/VOC2007')
    parser.add_argument('out', type=Path, help='folder to write')
    args = parser.parse_args()
    try:
        make_sample(args.source, args.out)
    except OSError as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
