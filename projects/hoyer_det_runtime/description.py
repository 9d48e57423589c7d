"""Reads what an exported file says about itself."""

import json
from pathlib import Path
from typing import Any

KEY = 'hoyer_det'
FORMAT = 1
# What preprocessing.py and nms.py read.
_ENTRIES = {
    'input': ('size', 'channels', 'scale', 'keep_ratio', 'pad'),
    'output': (
        *('score_thr', 'nms_pre', 'levels', 'clip', 'min_bbox_size'),
        *('nms_iou', 'nms_class_agnostic', 'max_per_img'),
    ),
}


def read_description(path: str | Path) -> dict[str, Any]:
    """Return the description in an exported file.

    It has the entries ``classes``, ``input`` (``size``, ``channels``, ``scale``, ``keep_ratio``, ``pad``),
    ``output`` (thresholds and NMS), ``spikes`` and ``bits``, and says what made it.

    Args:
        path: ONNX file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no ONNX file or truncated, has no description, or one of another format, or if
            the package onnx is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ValueError(f'{path}: needs the package onnx ({error}); pip install onnx') from error
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        model = onnx.load(str(path))
    except (DecodeError, OSError) as error:
        raise ValueError(f'{path}: is no ONNX file, or is truncated') from error
    if not model.graph.node:
        raise ValueError(f'{path}: is no ONNX file, or is truncated')
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if KEY not in texts:
        raise ValueError(
            f'{path}: has no description by hoyer_det; write it with `hoyer-det export`'
        )
    try:
        description = json.loads(texts[KEY])
        number = description['format']
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{path}: its description cannot be read') from error
    if number != FORMAT:
        raise ValueError(
            f'{path}: is of format {number}, this version reads {FORMAT}; export the checkpoint again'
        )
    missing = [] if isinstance(description.get('classes'), list) else ['classes']
    for part, keys in _ENTRIES.items():
        given = description.get(part)
        missing += [f'{part}.{k}' for k in keys if not isinstance(given, dict) or k not in given]
    if missing:
        raise ValueError(f'{path}: its description has no {", ".join(missing)}; export it again')
    return description
