"""The size of an image as OpenCV reads it, whatever tags turn it for Pillow."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hoyer_det.datasets.image_size import seen_size, size_fault
from PIL import Image

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    b'</rdf:RDF></x:xmpmeta>'
)


def encode(kind: str, **options: object) -> bytes:
    """Return an image of 6 x 4 pixels."""
    content = BytesIO()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(content, kind, **options)
    return content.getvalue()


def jpeg(segment: bytes) -> bytes:
    """Return a JPEG with a segment for EXIF or XMP."""
    content = encode('JPEG')
    return content[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + content[2:]


def exif(kind: int, value: bytes) -> bytes:
    """Return a segment that has an orientation of a kind (2: text, 3: number)."""
    return b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01' + struct.pack('<HI', kind, 1) + value + bytes(4)


def png(exif: bytes) -> bytes:
    """Return a PNG with a chunk for EXIF."""
    content, chunk = encode('PNG'), b'eXIf' + exif
    at = content.index(b'IDAT') - 4
    chunk = struct.pack('>I', len(exif)) + chunk + struct.pack('>I', zlib.crc32(chunk))
    return content[:at] + chunk + content[at:]


@pytest.mark.parametrize(
    'content, size',
    [
        (encode('JPEG'), (6, 4)),
        (encode('PNG'), (6, 4)),
        (encode('BMP'), (6, 4)),
        (jpeg(exif(3, b'\x01\0\0\0')), (6, 4)),
        (jpeg(exif(3, b'\x06\0\0\0')), (4, 6)),
        (jpeg(exif(2, b'6\0\0\0')), (6, 4)),  # Pillow obeys it as text, OpenCV does not
        (jpeg(b'http://ns.adobe.com/xap/1.0/\0' + XMP), (6, 4)),  # nor in XMP
        (jpeg(b'Exif\0\0garbage'), (6, 4)),
        (png(exif(3, b'\x06\0\0\0')[6:]), (4, 6)),
        (png(b'garbage'), (6, 4)),
        (encode('TIFF', tiffinfo={274: 6}), (4, 6)),  # Pillow exchanges the sides by itself
    ],
)
def test_size_is_that_of_opencv(tmp_path: Path, content: bytes, size: tuple[int, int]) -> None:
    file = tmp_path / 'image'
    file.write_bytes(content)
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)  # as mmcv does
    assert decoded.shape[1::-1] == size
    assert seen_size(file) == size
    # Of a TIFF it cannot be told: OpenCV turns it even where it is asked not to.
    turned = size == (4, 6) and content[:2] != b'II'
    fault = size_fault(file, size[::-1], size)
    assert ('EXIF orientation turns it' in fault) == turned
    assert 'was it resized' in size_fault(file, size[::-1], (9, 9))


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    file = tmp_path / 'a.jpg'
    file.write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'a\.jpg: cannot be read as an image'):
        seen_size(file)
