"""Named sets of runs, as data."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Run:
    """One training, done once for each seed.

    Attributes:
        name: Name of its row and of its work folder.
        config: Config file, or the name of a shipped one.
        options: Settings that differ from the config, as ``--cfg-options`` takes them.
        flags: Further flags of ``hoyer-det train``, such as ``--twin relu``.
        reference: Name of the run to whose figure it is set in relation; by default the set's first.
    """

    name: str
    config: str
    options: dict[str, object] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    reference: str | None = None


@dataclass(frozen=True)
class ExperimentSet:
    """Runs that are compared.

    Attributes:
        title: What the table is called.
        runs: The runs in their order.
        data_root: Folder of the data set, where the user names none.
        metric: Key of the figure among the scalars of a validation.
        deployed: Whether the networks are exported, evaluated again and timed, too.
        costed: Whether their spikes and energy are measured, too.
    """

    title: str
    runs: tuple[Run, ...]
    data_root: str
    metric: str = 'pascal_voc/mAP'
    deployed: bool = False
    costed: bool = False

    def only(self, names: Sequence[str]) -> 'ExperimentSet':
        """Return the set with some of its runs, in the order of the set.

        Raises:
            ValueError: Names what is no run of the set.
        """
        own = [run.name for run in self.runs]
        if unknown := [name for name in names if name not in own]:
            raise ValueError(f'--runs {" ".join(unknown)}: the set has {", ".join(own)}')
        return replace(self, runs=tuple(run for run in self.runs if run.name in names))


def _epochs(number: int) -> dict[str, object]:
    """Options of a training of so many epochs, evaluated at its end."""
    return {
        'train_cfg.max_epochs': number,
        'train_cfg.val_interval': number,
        'param_scheduler.1.end': number,
        'param_scheduler.1.T_max': number,
    }


_SSD = 'hoyer_ssd_vocformat'


def _against_twin(title: str, epochs: int) -> ExperimentSet:
    """SSD from random weights, and its ReLU twin with the same shortcuts."""
    options = _epochs(epochs)
    runs = Run('relu', _SSD, options, ('--twin', 'relu')), Run('spiking', _SSD, options)
    return ExperimentSet(title, runs, 'data/voc_sample')


def _three_ways(title: str, epochs: int) -> ExperimentSet:
    """SSD by three ways that see the training images equally often, the passes of a twin counted."""
    twins = _against_twin(title, epochs)
    from_twin = Run('from_twin', _SSD, _epochs(epochs), ('--from-twin',))
    return ExperimentSet(title, (*twins.runs, from_twin), twins.data_root)


def _width(width: float) -> dict[str, object]:
    """Options of the small SSD with another width, 0.25 being its own."""
    stages = (int(512 * width), int(1024 * width))
    channels = (*stages, int(512 * width), int(256 * width))
    return {
        'model.backbone.width': width,
        'model.neck.in_channels': stages,
        'model.neck.out_channels': channels,
        'model.bbox_head.in_channels': channels,
    }


def _from_objects(title: str, epochs: int, width: float) -> ExperimentSet:
    """SSD, a wider one and the ReLU twin, whose backbones have learned to classify the objects before."""
    twins = _against_twin(title, epochs)
    wide = Run(f'spiking_width_{width:g}', _SSD, {**_epochs(epochs), **_width(width)})
    runs = tuple(
        Run(run.name, run.config, run.options, (*run.flags, '--from-objects'))
        for run in (*twins.runs, wide)
    )
    return ExperimentSet(title, runs, twins.data_root)


def _regularizer(
    title: str,
    config: str,
    epochs: int,
    data_root: str,
    weights: tuple[float, ...],
    wide: tuple[tuple[float, float], ...] = (),
) -> ExperimentSet:
    """ReLU twins of two widths, and spiking networks: of several weights, of pairs (width, weight)."""
    own, relu = _epochs(epochs), ('--twin', 'relu')
    runs = [Run('relu', config, own, relu)]
    runs += [Run('relu_width_0.125', config, {**own, **_width(0.125)}, relu)]
    runs += [
        Run(f'weight_{weight:g}', config, {**own, 'custom_hooks.1.weight': weight})
        for weight in weights
    ]
    runs += [
        Run(
            f'width_{width:g}_weight_{weight:g}',
            config,
            {**own, **_width(width), 'custom_hooks.1.weight': weight},
        )
        for width, weight in wide
    ]
    return ExperimentSet(title, tuple(runs), data_root, deployed=True)


def _neuron(**settings: str) -> dict[str, object]:
    """Options of a small SSD whose neurons have other settings."""
    settings = {'type': 'HoyerSpike', **settings}
    parts = 'backbone', 'neck'
    return {f'model.{p}.act_cfg.{key}': value for p in parts for key, value in settings.items()}


def _comparison(title: str, config: str, epochs: int, data_root: str) -> ExperimentSet:
    """The spiking network, each of its twins, and each of the paper's choices turned around."""
    own = _epochs(epochs)
    twins = [
        Run(kind, config, own, ('--twin', kind)) for kind in ('relu', 'level', 'onebit', 'lif')
    ]
    others = {
        'no_regularizer': {'custom_hooks.1.weight': 0},
        'saturated_excluded': _neuron(saturated='exclude'),
        'extremum_of_layer': _neuron(extremum='layer'),  # the default is that of each channel
    }
    changed = [Run(name, config, {**own, **options}) for name, options in others.items()]
    runs = twins[0], Run('spiking', config, own), *twins[1:], *changed
    return ExperimentSet(title, runs, data_root, costed=True)


def _detectors(
    title: str,
    configs: dict[str, tuple[str, ...]],
    data_root: str,
    metric: str = 'pascal_voc/mAP',
    epochs: int | None = None,
) -> ExperimentSet:
    """Detectors, each with its flags behind its ReLU twin; without ``epochs`` by their own schedules."""
    options = {} if epochs is None else _epochs(epochs)
    runs = [
        Run(f'{config}{suffix}', config, options, flags, f'{config}_relu')
        for config, own in configs.items()
        for suffix, flags in (('_relu', ('--twin', 'relu')), ('', own))
    ]
    return ExperimentSet(title, tuple(runs), data_root, metric)


def _probe(title: str, epochs: int) -> ExperimentSet:
    """The same, and the spiking network without shortcuts: what a long training ranks last."""
    ways = _three_ways(title, epochs)
    parts = 'backbone.shortcut', 'backbone.out_stream', 'neck.shortcut'
    plain = Run('plain', _SSD, {**_epochs(epochs), **{f'model.{part}': False for part in parts}})
    return ExperimentSet(title, (*ways.runs, plain), ways.data_root)


_TITLE = 'SSD at 160 px in 20 epochs'
SETS = {
    'comparison_shapes': _comparison(
        'Neurons on the synthetic shapes: SSD at 128 px in 12 epochs',
        'hoyer_ssd_shapes',
        12,
        'data/shapes',
    ),
    'comparison_bccd': _comparison(
        'Neurons on blood cells: SSD at 160 px in 72 epochs', _SSD, 72, 'data/bccd'
    ),
    'comparison_voc_sample': _comparison(
        'Neurons on photographs: SSD at 160 px in 20 epochs', _SSD, 20, 'data/voc_sample'
    ),
    'detectors_voc_sample': _detectors(
        'YOLOv3 and RetinaNet at 160 px in 20 epochs',
        dict.fromkeys(('hoyer_yolov3_vocformat', 'hoyer_retinanet_r18_vocformat'), ()),
        'data/voc_sample',
        epochs=20,
    ),
    'voc': _detectors(
        'Pascal VOC 07+12',
        dict.fromkeys(('hoyer_ssd_voc', 'hoyer_yolov3_voc', 'hoyer_retinanet_r18_voc'), ()),
        'data/VOCdevkit',
    ),
    'coco': _detectors(
        'COCO',
        dict.fromkeys(('hoyer_ssd_coco', 'hoyer_yolov3_coco', 'hoyer_retinanet_r50_coco'), ()),
        'data/coco',
        'coco/bbox_mAP',
    ),
    'probe': _probe('Probe: SSD at 160 px in 4 epochs', 4),
    'voc_sample': _against_twin(_TITLE, 20),
    'voc_sample_from_objects': _from_objects(
        'SSD at 160 px in 24 epochs, the objects first', 24, width=0.375
    ),
    'voc_sample_from_twin': _three_ways(_TITLE, 20),
    'regularizer_shapes': _regularizer(
        'Regularizer weight on the synthetic shapes, SSD at 128 px in 12 epochs',
        'hoyer_ssd_shapes',
        12,
        'data/shapes',
        (0.0, 1e-8, 1e-6, 3e-6, 1e-5),
        ((0.375, 1e-8), (0.375, 1e-6), (0.5, 1e-6)),
    ),
    'regularizer_bccd': _regularizer(
        'Regularizer weight on blood cells, SSD at 160 px in 72 epochs',
        _SSD,
        72,
        'data/bccd',
        (1e-8, 1e-6, 3e-6),
    ),
}
