"""What the networks of a set cost: spikes and energy, and the figures that were reached at that."""

import json
import tempfile
from pathlib import Path
from typing import Any

from ..engine.checkpoint import newest_good_checkpoint
from ..files import write_json
from .calling import call
from .running import RESULT, option_flags, read_final, work_dir
from .sets import ExperimentSet, Run

COSTS = 'costs.json'
# Twins without a Hoyer neuron: each is analysed beside the spiking network whose twin it is.
OTHERS = [('--twin', 'relu'), ('--twin', 'lif')]
TABLE = '45nm'  # of the energy constants


def measure_costs(
    experiments: ExperimentSet, out: Path, data_root: str, seeds: int, images: int = 24
) -> None:
    """Analyse every trained network of a set that has not been; ReLU and LIF once the spiking one is trained.

    Written is ``costs.json`` in each work folder: ``figures`` of its last validation, ``spike_rate`` (None
    for ReLU and LIF), and ``compute_uj`` and ``total_uj``, the energy of an image without and with memory; of
    ReLU networks with their zeros skipped.

    Args:
        experiments: The set.
        out: Folder of the work folders.
        data_root: Folder of the data set.
        seeds: Number of seeds, from 0 on.
        images: Number of test images that are analysed.

    Raises:
        SystemExit: If an analysis fails, which has said why.
    """
    for run in experiments.runs:
        for seed in range(seeds):
            folder = work_dir(out, run, seed)
            beside = work_dir(out, _spiking(experiments, run), seed)
            trained = all((f / RESULT).is_file() for f in (folder, beside))
            if trained and not (folder / COSTS).is_file():
                costs = _measured(experiments, run, out, seed, data_root, images)
                write_json(folder / COSTS, costs)


def _spiking(experiments: ExperimentSet, run: Run) -> Run:
    """Return the spiking network whose twin a run is, or the run itself if it has Hoyer neurons."""
    if run.flags not in OTHERS:
        return run
    (own,) = (r for r in experiments.runs if r.options == run.options and not r.flags)
    return own


def _measured(
    experiments: ExperimentSet, run: Run, out: Path, seed: int, data_root: str, images: int
) -> dict[str, Any]:
    folder = work_dir(out, run, seed)
    checkpoint, _ = newest_good_checkpoint(folder)
    command = [run.config, checkpoint, *run.flags]
    if run.flags in OTHERS:
        own = work_dir(out, _spiking(experiments, run), seed)
        command = [run.config, newest_good_checkpoint(own)[0]]
        command += ['--compare-twin', run.flags[1], checkpoint]
    with tempfile.TemporaryDirectory(dir=folder) as report:
        place = ('--data', 'test', '--images', images, '--runs', 0, '--out', report)
        options = option_flags({**run.options, 'data_root': data_root})
        call('analyze', *command, *place, *options)
        summary = json.loads((Path(report) / 'summary.json').read_text(encoding='utf-8'))
    name, model = list(summary['models'].items())[-1]
    energies = {row['network']: row[TABLE] for row in summary['energy']}
    energy = energies.get(f'{name}, zeros skipped, fp32', energies[f'{name}, fp32'])
    return dict(
        figures=read_final(folder, experiments.metric),
        spike_rate=model['totals']['spike_rate'],
        compute_uj=energy['compute_uj'],
        total_uj=energy['total_uj'],
    )
