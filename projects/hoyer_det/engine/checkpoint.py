"""Refuses checkpoints that cannot be read, are not finite, or do not belong to a model."""

import copy
import re
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ..config import dataset_classes
from ..errors import naming
from ..twins import check_twin
from ..weights.from_ann import map_ann, modules_from_ann
from ..weights.reading import (
    Checkpoint,
    config_parts,
    pretrained_modules,
    read_checkpoint,
    read_content,
    reads_file,
)
from ..weights.stored_config import stored_config
from .finite_hook import first_nonfinite, nonfinite_in_checkpoint
from .neuron_settings import settings_that_differ

_MAY_DIFFER = r'head|\.running_(extremum|weight)$'


def load_trained(
    cfg: Config, path: str, twin_flag: str = '--twin'
) -> tuple[nn.Module, dict[str, Any]]:
    """Load a trained model, after making sure that it is the one that the config describes.

    MMEngine itself only warns about missing, mismatched and unexpected weights and then evaluates a
    partly random network, or another one than was trained.

    Args:
        cfg: Completed config with a ``model``.
        path: Checkpoint file or address, as for ``load_from``.
        twin_flag: Flag that chooses a twin of the config, for the message.

    Returns:
        The model in evaluation mode, and what the checkpoint says about its training (``meta``).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, holds NaN or inf, lacks weights, has others or some of
            another shape, or was trained as another twin, on other classes or with neurons that fire
            differently.
    """
    checkpoint = read_finite(path)
    check_twin(cfg, checkpoint, twin_flag)
    model = build_trained(cfg, checkpoint)
    trained, wanted = checkpoint.dataset_meta['classes'], dataset_classes(cfg)
    if trained and wanted is not None and trained != tuple(wanted):
        raise ValueError(
            f'{path}: was trained on classes {trained}, the test data has {tuple(wanted)}'
        )
    return model, checkpoint.meta


def build_trained(cfg: Config, checkpoint: Checkpoint) -> nn.Module:
    """Return the model of a config in evaluation mode, with weights and ``dataset_meta`` of a checkpoint.

    Raises:
        ValueError: If the model cannot be built, or see :func:`check_fit`.
    """
    model = build_model(cfg)
    own = cfg.filename == checkpoint.path  # by `stored_config`
    check_fit(checkpoint, model, 'its own config' if own else cfg.filename)
    model.load_state_dict(checkpoint.weights)
    model.dataset_meta = checkpoint.dataset_meta
    return model.eval()


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config with random weights; it gets the config's ``data_preprocessor``.

    Raises:
        ValueError: If it cannot be built.
    """
    model = copy.deepcopy(cfg.model)  # detectors write into their heads' settings
    if cfg.get('data_preprocessor'):
        model.setdefault('data_preprocessor', cfg.data_preprocessor)  # as the Runner does
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with naming(cfg, 'model'):
        return MODELS.build(model)


def check_fit(checkpoint: Checkpoint, model: nn.Module, owner: str) -> None:
    """Make sure that a checkpoint holds the weights of a model, all of them and no others.

    Args:
        checkpoint: The checkpoint.
        model: The model.
        owner: What the model was built from, for the message.

    Raises:
        ValueError: If weights are missing, unexpected or of another shape, neurons fire differently, or
            one has shortcuts where the other has none.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in checkpoint.weights]
    unexpected = [name for name in checkpoint.weights if name not in expected]
    other = _other_shapes(checkpoint.weights, model)
    neurons = settings_that_differ(checkpoint.meta.get('neurons') or {}, model, evaluation=True)
    facts = [f'{len(missing)} weights missing (first: {missing[0]})'] if missing else []
    facts += [f'{len(other)} of another shape (first: {other[0]})'] if other else []
    facts += [f'{len(unexpected)} unexpected (first: {unexpected[0]})'] if unexpected else []
    facts += [f'neurons with {difference}' for difference in neurons]
    facts += _shortcuts_that_differ(checkpoint, model)
    if facts:
        raise ValueError(f'{checkpoint.path}: does not belong to {owner}: {", ".join(facts)}')


def _shortcuts_that_differ(checkpoint: Checkpoint, model: nn.Module) -> list[str]:
    """Compare shortcuts, which have no weights, with the config that a checkpoint brings along."""
    try:
        trained = stored_config(checkpoint.meta, checkpoint.path).get('model') or {}
    except ValueError:
        return []  # of another program
    trained, facts = trained.get('detector', trained), []
    for part in ('backbone', 'neck'):
        module = getattr(getattr(model, 'detector', model), part, None)
        now, then = getattr(module, 'shortcut', None), trained.get(part) or {}
        if isinstance(now, bool) and bool(then.get('shortcut')) != now:
            facts.append(f'trained with {part}.shortcut={not now}, not {now}')
    return facts


def check_starting_weights(cfg: Config) -> None:
    """Make sure that the checkpoints a training starts from fit the model.

    MMEngine leaves weights of another shape at random and says so in the middle of its log. Weights may
    be missing or left over, and those of a head may be of another shape, as its classes may be others;
    so may a neuron's running averages, which ``NeuronSettingsHook`` warns of.

    Args:
        cfg: Completed config; its ``load_from``, unless it resumes, and every ``init_cfg`` of the model
            that is a ``Pretrained`` or ``FromANN`` are checked.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If one is no checkpoint, holds NaN or inf, has nothing for the model, or weights of
            another shape.
    """
    load_from = None if cfg.get('resume') else cfg.get('load_from')
    if not load_from and not any(map(reads_file, config_parts(cfg.model))):
        return
    model = build_model(cfg)
    for module, source in modules_from_ann(model):
        map_ann(source.read(), module)
    starts = list(pretrained_modules(model)) + [(model, load_from, '')] * bool(load_from)
    for module, path, prefix in starts:
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in read_finite(path).weights.items()
            if name.startswith(prefix)
        }
        if not set(weights) & set(module.state_dict()):
            under = f' under {prefix!r}' if prefix else ''
            raise ValueError(f'{path}: has no weights{under} for {type(module).__name__}')
        other = _other_shapes(weights, module, _MAY_DIFFER)
        if other:
            raise ValueError(
                f'{path}: {len(other)} weights do not fit {type(module).__name__} (first: {other[0]}); '
                'it was trained with another width, depth or structure'
            )


def check_resumable(path: str | Path) -> None:
    """Make sure that a training can go on from a checkpoint.

    Args:
        path: Checkpoint file or address.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, has no optimizer, or weights, averaged weights or the state
            of the optimizer hold NaN or inf.
    """
    content = read_content(path)
    if not isinstance(content, dict) or not {'state_dict', 'optimizer'} <= content.keys():
        raise ValueError(f'{path}: holds no state of a training to go on from')
    _refuse(str(path), nonfinite_in_checkpoint(content))


def newest_good_checkpoint(folder: str | Path) -> tuple[str | None, list[str]]:
    """Find the checkpoint to resume from, passing over files that are truncated, not finite or gone.

    All are of this folder: ``last_checkpoint`` holds an absolute path, which in a copy of the folder still
    names the file of the original.

    Args:
        folder: Work folder of a run.

    Returns:
        The newest good checkpoint, None if there is none; and a line for each newer one that is not
        good, with its file and the reason.
    """
    folder = Path(folder)
    note = folder / 'last_checkpoint'
    named = [folder / Path(note.read_text().strip()).name] if note.is_file() else []
    # Not best_*.pth: they are for evaluation and hold no state of the optimizer.
    found = [p for p in folder.glob('*.pth') if re.fullmatch(r'(epoch|iter)_\d+', p.stem)]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    bad = []
    for path in dict.fromkeys([*named, *found]):
        try:
            check_resumable(path)
        except (OSError, ValueError) as error:
            bad.append(str(error))
        else:
            return str(path), bad
    return None, bad


def read_finite(path: str) -> Checkpoint:
    """Read a checkpoint whose weights are finite.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or its weights hold NaN or inf.
    """
    checkpoint = read_checkpoint(path)
    _refuse(path, first_nonfinite(checkpoint.weights))
    return checkpoint


def _refuse(path: str, nonfinite: str | None) -> None:
    if nonfinite is not None:
        raise ValueError(f'{path}: {nonfinite} holds NaN or inf')


def _other_shapes(weights: dict[str, Tensor], model: nn.Module, but: str = '$^') -> list[str]:
    """Return the weights of another shape than the model's, with both shapes, ``but`` for some names."""
    return [
        f'{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}'
        for name, tensor in model.state_dict().items()
        # A buffer of 0 entries takes the number of channels from the checkpoint.
        if name in weights
        and tensor.numel()
        and weights[name].shape != tensor.shape
        and not re.search(but, name)
    ]
