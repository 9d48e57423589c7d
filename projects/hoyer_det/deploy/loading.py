"""Builds the detector of a config with the classes of a checkpoint, without its data."""

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from ..config import dataset_classes
from ..weights.reading import Checkpoint


def build_for_export(cfg: Config, checkpoint: Checkpoint, path: str) -> nn.Module:
    """Return the detector in evaluation mode, with random weights and ``dataset_meta``.

    Args:
        cfg: Config.
        checkpoint: Names the classes.
        path: Its file, for messages.

    Raises:
        ValueError: If neither the checkpoint nor the config names the classes.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    meta = checkpoint.meta.get('dataset_meta') or checkpoint.meta
    classes = {key.lower(): value for key, value in meta.items()}.get('classes')
    classes = classes or dataset_classes(cfg)
    if not classes:
        raise ValueError(f'{path}: does not name its classes (meta.dataset_meta.classes)')
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)  # as the Runner does
    number = len([classes] if isinstance(classes, str) else classes)
    head = cfg.model.get('detector', cfg.model).get('bbox_head')
    if head and head.get('num_classes') not in (None, number):
        head.num_classes = number  # a config that takes its classes from its data
    model = MODELS.build(cfg.model).eval()
    model.dataset_meta = dict(classes=(classes,) if isinstance(classes, str) else tuple(classes))
    return model
