"""What computes an exported graph."""

import importlib
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# An engine is built from a file and a number of threads (None: its own choice), and is called with images.
Engine = Callable[[np.ndarray], dict[str, np.ndarray]]
# Name: module and class, imported when it is asked for.
ENGINES = {
    'onnxruntime': 'hoyer_det_runtime.engines:OnnxRuntime',
    'openvino': 'hoyer_det_runtime.engines:OpenVino',
    'spikes': 'hoyer_det_runtime.spikes:SpikeEngine',
}

KEPT_SIZES = 4  # of batches, for which an engine keeps what it has prepared


def open_engine(name: str, path: str | Path, threads: int | None = None) -> Engine:
    """Open an exported file with an engine.

    Args:
        name: One of :data:`ENGINES`.
        path: The file.
        threads: Number of threads; by default the engine's own choice.

    Returns:
        An object that turns images, uint8 (N, 3, H, W), into the outputs of the graph by their names.

    Raises:
        ValueError: If there is no such engine, its package is not installed, or it cannot run the file.
    """
    if name not in ENGINES:
        raise ValueError(f'engine {name!r}: no such engine; known are {", ".join(ENGINES)}')
    if threads is not None and threads < 1:
        raise ValueError(f'threads={threads}: must be at least 1')
    module, cls = ENGINES[name].split(':')
    try:
        kind = getattr(importlib.import_module(module), cls)
        return kind(path) if threads is None else kind(path, threads)
    except ImportError as error:
        raise ValueError(
            f'{path}: the engine {name!r} is not installed here ({error}); pip install {error.name or name}'
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        lines = (str(error).strip() or type(error).__name__).splitlines()
        # OpenVINO begins with lines of its source code.
        first = lines[-1 if lines[0].startswith('Exception from ') else 0]
        if name == 'spikes' and isinstance(error, RuntimeError):  # it cannot be compiled here
            warnings.warn(f'ONNX Runtime runs instead of the spike engine: {first}', stacklevel=2)
            return open_engine('onnxruntime', path, threads)
        raise ValueError(f'{path}: cannot be run by {name} ({first})') from error


class OnnxRuntime:
    """ONNX Runtime on the CPU.

    Args:
        path: The file.
        threads: Number of threads.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # its own classes share no base but this
            raise RuntimeError(str(error)) from error
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute."""
        outputs = self._session.run(self._names, {'image': images})
        return dict(zip(self._names, outputs, strict=True))


class OpenVino:
    """OpenVINO on the CPU, compiled for each size of a batch when it is first met, and kept for a few.

    It computes in float32 throughout: by default it would compute float parts in bfloat16 where the CPU
    can, and spikes would differ.

    Args:
        path: The file.
        threads: Number of threads.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        # Its telemetry would wait for the network.
        os.environ.setdefault('OPENVINO_TELEMETRY_ENABLE', '0')
        import openvino

        self._core = openvino.Core()
        self._model = self._core.read_model(str(path))
        self._settings: dict[str, Any] = dict(INFERENCE_PRECISION_HINT='f32')
        if threads is not None:
            self._settings['INFERENCE_NUM_THREADS'] = threads
        self._compiled: dict[Sequence[int], Any] = {}
        self._lock = threading.Lock()  # calls share a compiled model's request

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute. Several Python threads may call; they take turns."""
        with self._lock:
            compiled = self._compile(images.shape)
            results = compiled([np.ascontiguousarray(images)])
            return {
                name: results[index]
                for index, port in enumerate(compiled.outputs)
                for name in port.get_names()
            }

    def _compile(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._compiled:
            if len(self._compiled) == KEPT_SIZES:
                del self._compiled[next(iter(self._compiled))]  # the oldest
            model = self._model.clone()
            model.reshape(list(shape))
            self._compiled[shape] = self._core.compile_model(model, 'CPU', self._settings)
        return self._compiled[shape]
