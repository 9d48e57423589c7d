"""The stages of ``hoyer-det train CONFIG --from-objects``."""

import copy
from typing import Any

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config

from ..config import load_config
from ..datasets.completion import iterate_datasets
from ..twins import TWINS, check_twin, twin_hooks
from ..weights.reading import config_parts, read_checkpoint, reads_file
from .differences import learning_settings
from .stages import MakeRunner, Resume, StagedTraining, name_visualizer

OBJECT_EPOCHS = 30
_CLASSIFIER = 'pretrain/objects_hoyer_vgg11'


class FromObjects(StagedTraining):
    """Trains a detector whose backbone has learned to classify the objects of the same images before.

    The objects are cut out of the training images (``ObjectCropsDataset``); the classifier is the
    detector's own backbone, its recipe that of ``configs/pretrain/objects_hoyer_vgg11.py``, its run in
    ``work_dir/objects``. The detector's run is in ``work_dir`` itself. What each stage reached stands in
    ``work_dir/from_objects.json``, and stages that stand there are not run again.

    Args:
        cfg: Completed config of a detector with a ``HoyerVGG`` or ``HoyerResNet``, spiking or a twin of
            one time step; has a ``work_dir``.
        epochs: Epochs of the classifier.
        resume: Whether to go on with what is in the work folder.

    Raises:
        Exception: Whatever building the detector raises.
        ValueError: If the backbone is another or starts from a checkpoint already, the number of epochs is
            not positive, or the work folder holds another training, or this one without ``resume``.
    """

    def __init__(self, cfg: Config, epochs: int = OBJECT_EPOCHS, resume: bool = False) -> None:
        if epochs < 1:
            raise ValueError(f'--object-epochs {epochs}: must be at least 1')
        _refuse_other_starts(cfg)
        lengths = dict(objects=f'{epochs} epochs', detector=_length(cfg))
        plan = dict(lengths=lengths, **learning_settings(cfg))
        super().__init__(cfg, '--from-objects', plan, lengths, resume)
        self._detector = copy.deepcopy(cfg)
        with torch.device('meta'):  # a mistake in it shows before the classifier is trained
            MODELS.build(copy.deepcopy(cfg.model))
        self._objects = classifier_config(cfg, epochs)
        self._objects.work_dir = str(self.work_dir / 'objects')

    def run(self, make_runner: MakeRunner, resume: Resume) -> None:
        """Run the stages that are not complete.

        Args:
            make_runner: Makes the runner of a config.
            resume: Lets a config go on from the newest checkpoint in its work folder.
        """
        if not self._complete('objects'):
            self._train('objects', self._objects, make_runner, resume)
        if not self._complete('detector'):
            checkpoint = str(self._checkpoint('objects'))
            check_twin(self._detector, read_checkpoint(checkpoint))
            start = dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
            _backbone(self._detector).init_cfg = start
            self._train('detector', self._detector, make_runner, resume)


def classifier_config(cfg: Config, epochs: int) -> Config:
    """Return the config of a classifier of the objects that a detector's training images show.

    Args:
        cfg: Completed config of the detector; it stays as it is.
        epochs: Epochs of the classifier.

    Raises:
        ValueError: If it is no detector, or its backbone neither ``HoyerVGG`` nor ``HoyerResNet``, or
            runs over several time steps.
    """
    if cfg.model.type == 'SpikingClassifier':
        raise ValueError('--from-objects: the config is that of a classifier; give a detector')
    if cfg.get('twin') == 'lif':
        raise ValueError('--from-objects: does not go with --twin lif; leave one of them out')
    made = load_config(_CLASSIFIER, complete=False)
    backbone = copy.deepcopy(_backbone(cfg))
    for key in ('init_cfg', 'out_stream', 'ssd_tail', 'frozen_stages', 'norm_eval'):
        backbone.pop(key, None)
    if backbone.type == 'HoyerVGG':
        backbone.out_indices = (4,)  # the last stage before SSD's
    elif backbone.type == 'HoyerResNet':
        backbone.out_indices = (MODELS.build(backbone).out_indices[-1],)
    else:
        raise ValueError(
            f'--from-objects: knows HoyerVGG and HoyerResNet, the backbone is {backbone.type}; leave it out'
        )
    made.model.backbone = backbone
    if cfg.get('twin') in TWINS:
        made.twin = cfg.twin
        made.custom_hooks = twin_hooks(made.custom_hooks, cfg.twin)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        source = cfg.train_dataloader if key == 'train_dataloader' else cfg.val_dataloader
        made[key].dataset.dataset = copy.deepcopy(source.dataset)
        for name in ('num_workers', 'persistent_workers'):
            if name in source:
                made[key][name] = source[name]
    # An object at 64 px costs a small part of what an image does.
    made.train_dataloader.batch_size = 4 * cfg.train_dataloader.batch_size
    made.model.head.num_classes = _number_of_classes(cfg)
    made.max_epochs = made.train_cfg.max_epochs = epochs
    made.train_cfg.val_interval = min(made.train_cfg.val_interval, epochs)
    made.param_scheduler[1].update(end=epochs, T_max=epochs)
    made.randomness = cfg.get('randomness', made.randomness)
    made.launcher = cfg.get('launcher', 'none')
    for key in ('env_cfg', 'sync_bn'):
        if key in cfg:
            made[key] = cfg[key]
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper':
        amp = ('type', 'loss_scale', 'dtype')
        made.optim_wrapper.update({k: v for k, v in cfg.optim_wrapper.items() if k in amp})
    if (cfg.get('auto_scale_lr') or {}).get('enable'):
        made.auto_scale_lr.enable = True
    made.experiment_name = 'objects'
    name_visualizer(made, 'objects')
    return made


def _refuse_other_starts(cfg: Config) -> None:
    """Refuse weights that would stand in for what the objects teach, or be replaced by it."""
    start = _backbone(cfg).get('init_cfg')
    if any(map(reads_file, config_parts(start))):
        key = 'model.detector.backbone' if 'detector' in cfg.model else 'model.backbone'
        raise ValueError(
            f'{cfg.filename}: {key}.init_cfg={start}: --from-objects brings the backbone other '
            f'weights; add `--cfg-options {key}.init_cfg=None`, or leave --from-objects out'
        )
    if cfg.get('load_from'):
        raise ValueError(
            f'{cfg.filename}: load_from={cfg.load_from!r}: would replace what --from-objects teaches the '
            'backbone; leave one of them out'
        )


def _length(cfg: Config) -> str:
    """Return how long the detector is trained, as ``24 epochs``."""
    for key, unit in (('max_epochs', 'epochs'), ('max_iters', 'iterations')):
        if cfg.train_cfg.get(key) is not None:
            return f'{cfg.train_cfg[key]} {unit}'
    raise ValueError(f'{cfg.filename}: train_cfg has neither max_epochs nor max_iters; set one')


def _backbone(cfg: Config) -> Any:
    return cfg.model.get('detector', cfg.model).backbone


def _number_of_classes(cfg: Config) -> int:
    first = next(iterate_datasets(cfg, ('train_dataloader',)))
    return len(DATASETS.build({**first, 'pipeline': [], 'lazy_init': True}).metainfo['classes'])
