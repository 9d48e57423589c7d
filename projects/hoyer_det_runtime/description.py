"""Reads what an exported file says about itself."""

import json
from pathlib import Path
from typing import Any

KEY = 'hoyer_det'
FORMAT = 1


def read_description(path: str | Path) -> dict[str, Any]:
    """Return the description in an exported file.

    It has the entries ``classes``, ``input`` (``size``, ``channels``, ``scale``, ``keep_ratio``, ``pad``),
    ``output`` (thresholds and NMS), ``spikes`` and ``bits``, and says what made it.

    Args:
        path: ONNX file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no ONNX file or truncated, has no description, or one of another format.
    """
    import onnx
    from google.protobuf.message import DecodeError

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
    missing = [
        key
        for key in ('classes', 'input', 'output')
        if not isinstance(description.get(key), list | dict)
    ]
    if missing:
        raise ValueError(f'{path}: its description has no {", ".join(missing)}; export it again')
    return description
