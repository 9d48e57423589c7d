"""Refuses a checkpoint that does not belong to a config."""

from pathlib import Path

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import _load_checkpoint

from ..config import dataset_classes


def check_checkpoint(cfg: Config, path: str) -> None:
    """Make sure that a checkpoint holds the weights of the config's model, all of them and no others.

    MMEngine itself only warns about missing, mismatched and unexpected weights and then evaluates a
    partly random network, or another one than was trained.

    Args:
        cfg: Completed config with a ``model``.
        path: Checkpoint file or address, as for ``load_from``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, lacks weights, has others or some of another shape, or
            was trained on other classes.
    """
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint file')
    try:
        checkpoint = _load_checkpoint(path, map_location='cpu')
    except Exception as error:
        # The error itself is long and recommends to turn the protection off.
        raise ValueError(
            f'{path}: cannot be read as a checkpoint ({type(error).__name__}); it must be a file of '
            'torch.save that holds weights and plain data alone'
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f'{path}: holds a {type(checkpoint).__name__}, not a checkpoint')
    weights = checkpoint.get('state_dict', checkpoint)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model)
    missing, other = [], []
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            missing.append(name)
        # A buffer of 0 entries takes the number of channels from the checkpoint.
        elif tensor.numel() and tuple(weights[name].shape) != tuple(tensor.shape):
            other.append(f'{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}')
    unexpected = [name for name in weights if name not in expected]
    if missing or other or unexpected:
        facts = [f'{len(missing)} weights missing (first: {missing[0]})'] if missing else []
        facts += [f'{len(other)} of another shape (first: {other[0]})'] if other else []
        facts += [f'{len(unexpected)} unexpected (first: {unexpected[0]})'] if unexpected else []
        raise ValueError(f'{path}: does not belong to {cfg.filename}: {", ".join(facts)}')
    trained = checkpoint.get('meta', {}).get('dataset_meta', {}).get('classes')
    wanted = dataset_classes(cfg)
    if trained is not None and wanted is not None and tuple(trained) != tuple(wanted):
        raise ValueError(
            f'{path}: was trained on classes {tuple(trained)}, the test data has {tuple(wanted)}'
        )
