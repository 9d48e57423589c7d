"""Exports what a set has trained, evaluates the files, and times them in turns."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.checkpoint import newest_good_checkpoint
from ..files import write_json
from .calling import call, read_json
from .running import RESULT as DONE
from .running import option_flags, read_log, work_dir
from .sets import ExperimentSet, Run

RESULT = 'deployed.json'


@dataclass(frozen=True)
class Form:
    """A file that a network is exported to.

    Attributes:
        name: Name of the file and of its series in the plot.
        engine: Engine that runs it.
        flags: Further flags of ``hoyer-det export``.
    """

    name: str
    engine: str
    flags: tuple[str, ...] = ()


SPIKING = (Form('spiking', 'spikes', ('--weights', '5')),)
TWIN = (Form('relu_int8', 'onnxruntime'), Form('relu_float32', 'onnxruntime', ('--float',)))


def check_packages() -> None:
    """Make sure that there is what exporting needs, before hours of training.

    Raises:
        ValueError: Names what is missing.
    """
    missing = [name for name in ('onnx', 'onnxscript', 'onnxruntime') if find_spec(name) is None]
    if missing:
        names = ' '.join(missing)
        raise ValueError(
            f'this set exports what it trains, which needs {names}: pip install {names}'
        )


def forms(run: Run) -> tuple[Form, ...]:
    """Return the files that a run is exported to: ReLU twins as int8 and float32."""
    return TWIN if '--twin' in run.flags else SPIKING


def deploy_all(
    experiments: ExperimentSet, out: Path, data_root: str, seeds: int, rounds: int = 50
) -> None:
    """Export and evaluate what is trained and has not been yet, then time all files of the set in turns.

    Written is ``deployed.json`` in ``out`` with ``processor`` and ``rows``, a dictionary for each file:
    ``run``, ``seed``, ``form``, ``metric`` (of the exported file), ``spike_rate`` (in its last
    validation, all neurons; None for ReLU), ``milliseconds`` (median, one image, one thread, without
    reading the image and NMS) and ``quartiles``.

    Args:
        experiments: The set.
        out: Folder of the work folders.
        data_root: Folder of the data set.
        seeds: Number of seeds, from 0 on.
        rounds: How often each file is timed.

    Raises:
        SystemExit: If an export or an evaluation fails, which has said why.
    """
    from hoyer_det_runtime.engines import open_engine  # needs an engine only here

    from ..analysis.timing import describe_processor, measure_milliseconds

    rows, calls = [], {}
    for run, seed, form in _files(experiments, out, seeds):
        folder = work_dir(out, run, seed)
        file = folder / f'{form.name}.onnx'
        row = _evaluated(experiments.metric, run, form, file, data_root)
        rows.append(dict(run=run.name, seed=seed, form=form.name, **row))
        engine = open_engine(form.engine, file, 1)
        image = np.random.default_rng(0).integers(0, 256, (1, 3, *row['size']), np.uint8)
        calls[str(file)] = lambda engine=engine, image=image: engine(image)
    for row, duration in zip(rows, measure_milliseconds(calls, rounds).values(), strict=True):
        row.update(milliseconds=duration.median, quartiles=duration.quartiles)
    write_json(out / RESULT, dict(processor=describe_processor(), rows=rows))


def _files(experiments: ExperimentSet, out: Path, seeds: int) -> Iterator[tuple[Run, int, Form]]:
    for run in experiments.runs:
        for seed in range(seeds):
            if (work_dir(out, run, seed) / DONE).is_file():
                yield from ((run, seed, form) for form in forms(run))


def _evaluated(metric: str, run: Run, form: Form, file: Path, data_root: str) -> dict[str, Any]:
    """Export and evaluate a run, if that has not been done."""
    done = file.with_suffix('.json')
    if not done.is_file():
        from hoyer_det_runtime.description import read_description

        options = option_flags({**run.options, 'data_root': data_root})
        checkpoint, _ = newest_good_checkpoint(file.parent)
        call('export', run.config, checkpoint, file, *form.flags, *run.flags, *options)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            place = ('--engine', form.engine, '--threads', '1', '--work-dir', folder)
            call('test', run.config, file, *place, *options)
            (scalars,) = Path(folder).glob('*/*.json')
            reached = json.loads(scalars.read_text(encoding='utf-8'))[metric]
        write_json(
            done,
            dict(
                metric=reached,
                size=read_description(file)['input']['size'],
                spike_rate=_spike_rate(file.parent),
            ),
        )
    return read_json(done)


def _spike_rate(folder: Path) -> float | None:
    """Return the share of all neurons that fired in the last validation of a training."""
    rate = None
    for line in read_log(folder):
        rate = line.get('spike_rate', rate)
    return rate
