"""Image files as the runtime reads them, against MMDetection's own reading."""

import os
import struct
import zlib
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from hoyer_det_runtime.pixels import read_image


def write(path: Path, pixels: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.tif', 'a b ä.png'])
@pytest.mark.parametrize(
    'shape, kind',
    [((6, 9, 3), np.uint8), ((6, 9), np.uint8), ((1, 1, 3), np.uint8), ((6, 9, 3), np.uint16)],
)
def test_pixels_are_those_that_mmcv_reads(name, shape, kind, tmp_path):
    if kind == np.uint16 and name == 'a.jpg':
        kind = np.uint8
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape).astype(kind)
    path = write(tmp_path / name, pixels)
    found = read_image(path)
    assert found.dtype == np.uint8 and found.shape == (*shape[:2], 3)
    np.testing.assert_array_equal(found, mmcv.imread(str(path)))


def test_a_name_that_is_not_utf8(tmp_path):
    path = write(tmp_path / 'a.png', np.full((2, 3, 3), 7, np.uint8))
    path = path.rename(tmp_path / os.fsdecode(b'l\xe4.png'))
    assert (read_image(path) == 7).all()


def test_a_truncated_photograph_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = write(tmp_path / 'a.jpg', noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match='a.jpg: cannot be read as an image'):
        read_image(path)


def test_a_header_that_claims_too_much_is_refused(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        content = kind + data
        return struct.pack('>I', len(data)) + content + struct.pack('>I', zlib.crc32(content))

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0))
    path = tmp_path / 'a.png'
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', b'') + chunk(b'IEND', b''))
    with pytest.raises(ValueError, match='a.png: cannot be read as an image'):
        read_image(path)


def test_a_folder_is_named_as_one(tmp_path):
    with pytest.raises(ValueError, match=f'^{tmp_path}: is a folder; name the images in it$'):
        read_image(tmp_path)
