"""Named sets of runs, as data.

A run is a config with options, trained once for each seed. What a set compares stands in its first run,
to whose figure every other figure is set in relation.
"""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: Name of its row and of its work folder.
        config: Config file, relative to the folder of the shipped configs.
        options: Settings that differ from the config, as ``--cfg-options`` takes them.
        start: Name of an earlier run of the set from whose last checkpoint this one starts: by name where
            tensors agree, with calibrated thresholds where it has none of its own.
    """

    name: str
    config: str
    options: dict[str, object] = field(default_factory=dict)
    start: str | None = None


@dataclass(frozen=True)
class ExperimentSet:
    """Runs that are compared.

    Attributes:
        title: What the table is called.
        runs: The runs, in the order in which they are done. The first is the reference.
        data_root: Folder of the data set, where the user does not name one.
        metric: Key of the figure in the validation's scalars.
    """

    title: str
    runs: tuple[Run, ...]
    data_root: str
    metric: str = 'pascal_voc/mAP'


def _length(epochs: int, **options: object) -> dict[str, object]:
    """Options of a training of so many epochs, evaluated at its end."""
    return {
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': epochs,
        'param_scheduler.1.end': epochs,
        'param_scheduler.1.T_max': epochs,
        **options,
    }


_SSD = 'hoyer_ssd_vocformat.py'
_TWIN = 'twins/relu_ssd_vocformat.py'

# Half of the budget trains the twin, half the spiking detector that starts from it.
VOC_SAMPLE = ExperimentSet(
    'SSD at 160 px, 20 epochs in all',
    (
        Run('relu', _TWIN, _length(20)),
        Run('random', _SSD, _length(20)),
        Run('twin', _TWIN, _length(10)),
        Run('from_twin', _SSD, _length(10), start='twin'),
    ),
    'data/voc_sample',
)

PROBE = replace(
    VOC_SAMPLE,
    title='Probe: the same recipes in 4 epochs',
    runs=(
        Run('relu', _TWIN, _length(4)),
        Run('random', _SSD, _length(4)),
        Run('twin', _TWIN, _length(3)),
        Run('from_twin', _SSD, _length(1), start='twin'),
    ),
)

SETS = {'probe': PROBE, 'voc_sample': VOC_SAMPLE}
