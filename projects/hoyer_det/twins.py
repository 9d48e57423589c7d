"""Twins of an experiment: the same network, data and schedule with other activations."""

import copy
import inspect
import re
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config

from .weights.reading import Checkpoint

TWINS = ('relu', 'onebit', 'level', 'lif')
_KINDS = '|'.join(TWINS)
LIF_STEPS = 4
# Hooks that look for neurons, or for the twin itself.
_NEURON_HOOKS = (
    'HoyerRegularizerHook',
    'SharedNeuronHook',
    'SpikeRateHook',
    'SpikeStatisticsHook',
    'CalibrateFromANNHook',
    'DistillationHook',
)


def make_twin(cfg: Config, kind: str) -> Config:
    """Return the twin of an experiment.

    ``'relu'``: ReLU for every neuron, and no hook that looks for neurons; ``bias_spread`` has no effect
    with ReLU. A detector that ``SpikingDetector`` converts gets its own activations back.

    ``'onebit'``: neurons that fire at the clip threshold itself (``extremum='fixed'``), without the
    Hoyer regularizer: its weight is 0, its check for NaN and inf stays.

    ``'level'``: the same fixed firing level with the regularizer kept. Against the spiking network it
    shows what the Hoyer extremum does, against ``'onebit'`` what the regularizer does.

    ``'lif'``: leaky integrate-and-fire neurons over four time steps (``LIFSpike``), all of which see the
    image; the head reads the means over the steps. No hook looks for neurons.

    The config names its kind under ``twin``, and its file is that of the original with the kind behind
    its name (``hoyer_ssd_voc_relu.py``; so is a ``work_dir`` that the config sets). Dumped, it is
    complete: to train from it again takes no flag.

    Args:
        cfg: Config of a spiking detector or classifier; it stays as it is.
        kind: One of :data:`TWINS`.

    Raises:
        ValueError: If there is no such kind, or the config is a twin already or has no neuron; for
            ``'lif'`` also if neurons are elsewhere than in backbone and neck.

    Example:
        >>> from mmengine.config import Config
        >>> cfg = Config.fromfile(hoyer_det.config_path('hoyer_ssd_voc'))
        >>> make_twin(cfg, 'relu').model.backbone.act_cfg
        {'type': 'ReLU'}
    """
    if kind not in TWINS:
        raise ValueError(f'twin {kind!r}: no such kind; known are {", ".join(TWINS)}')
    name = cfg.filename or 'the config'
    if cfg.get('twin') in TWINS:
        raise ValueError(f'{name}: is a {cfg.twin} twin itself; make one from the original config')
    content = copy.deepcopy(cfg._cfg_dict)
    content.model = _replace(content.model, kind)
    if content.model == cfg.model:
        what = (
            'spikes at a fixed level already' if 'HoyerSpike' in str(cfg.model) else 'has no neuron'
        )
        raise ValueError(f'{name}: its model {what}, so it has no {kind} twin')
    if kind == 'lif':
        content.model = _over_time(content.model, name)
    content.custom_hooks = twin_hooks(content.get('custom_hooks') or [], kind)
    content.twin = kind
    if content.get('work_dir'):
        content.work_dir = f'{content.work_dir.rstrip("/")}_{kind}'
    file = Path(cfg.filename) if cfg.filename else None
    # The text stands in for the file, which does not exist.
    return Config(
        content,
        cfg_text=cfg.text or ' ',
        filename=file and str(file.with_name(f'{file.stem}_{kind}{file.suffix}')),
        env_variables=cfg.env_variables,
        format_python_code=False,
    )


def relu_model(cfg: Config) -> dict[str, Any]:
    """Return the model's config of the ReLU twin, of an experiment or of its onebit or level twin.

    Args:
        cfg: Config of a detector or classifier with ``HoyerSpike`` neurons; it stays as it is.

    Raises:
        ValueError: If it has no such twin, as :func:`make_twin`.
    """
    if cfg.get('twin') in ('onebit', 'level'):  # but for the level of the neurons, the original
        return _replace(copy.deepcopy(cfg._cfg_dict.model), 'relu')
    return make_twin(cfg, 'relu').model


def twin_hooks(hooks: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the hooks of an experiment that its twin keeps, as the twin has them.

    Args:
        hooks: Configs of custom hooks.
        kind: One of :data:`TWINS`.
    """
    if kind in ('relu', 'lif'):
        return [hook for hook in hooks if _name(hook) not in _NEURON_HOOKS]
    if kind == 'level':
        return hooks
    return [
        {**hook, 'weight': 0.0} if _name(hook) == 'HoyerRegularizerHook' else hook for hook in hooks
    ]


def check_twin(cfg: Config, checkpoint: Checkpoint, flag: str = '--twin') -> None:
    """Make sure that a checkpoint was trained as the twin, or the original, that a config describes.

    The weights alone cannot tell all of them apart.

    Args:
        cfg: Config as trained, or from :func:`make_twin`.
        checkpoint: One that says nothing of its config passes.
        flag: Flag that chose the config's kind, for the message.

    Raises:
        ValueError: If it is that of another twin.
    """
    text = checkpoint.meta.get('cfg')
    if not isinstance(text, str):
        return
    wanted = cfg.get('twin') if cfg.get('twin') in TWINS else None
    named = re.search(rf"^twin\s*=\s*'({_KINDS})'$", text, re.MULTILINE)
    if named:
        trained = named[1]
    elif wanted is None:
        return
    # Of before there was a flag, or of a config of one's own.
    elif wanted == 'relu':
        trained = None if 'HoyerSpike' in text else wanted
    else:
        trained = 'onebit' if re.search(r"extremum\s*=\s*'fixed'", text) else None
    if trained != wanted:
        raise ValueError(other_twin(f'{checkpoint.path}: is a checkpoint', trained, wanted, flag))


def other_twin(what: str, made: str | None, wanted: str | None, flag: str = '--twin') -> str:
    """Return the message for a file of another twin, or of the original (None), and the way out."""
    advice = f'give {flag} {made}' if made else f'leave {flag} out'
    return f'{what} of {_describe(made)}, not of {_describe(wanted)}; {advice}'


def _describe(kind: str | None) -> str:
    return f'the {kind} twin' if kind else 'the spiking network'


def _replace(node: Any, kind: str) -> Any:
    """Return a part of the model's config with other activations."""
    if isinstance(node, list | tuple):
        return type(node)(_replace(item, kind) for item in node)
    if not isinstance(node, dict):
        return node
    name = _name(node)
    if name == 'HoyerSpike':
        return _activation(node, kind)
    if name == 'SpikingDetector' and kind == 'relu':
        detector = _replace(node['detector'], kind)
        if node.get('data_preprocessor'):
            detector.setdefault('data_preprocessor', node['data_preprocessor'])
        return detector
    replaced = type(node)({key: _replace(value, kind) for key, value in node.items()})
    if node.get('act_cfg') is None and (name == 'SpikingDetector' or _is_ours(name)):
        replaced['act_cfg'] = _activation(dict(type='HoyerSpike'), kind)
    return replaced


def _activation(neuron: dict[str, Any], kind: str) -> dict[str, Any]:
    others = {'relu': dict(type='ReLU'), 'lif': dict(type='LIFSpike', steps=LIF_STEPS)}
    return others.get(kind) or {**neuron, 'extremum': 'fixed'}


def _over_time(model: dict[str, Any], name: str) -> dict[str, Any]:
    """Let backbone and neck of a model with ``LIFSpike`` run over all time steps."""
    rest = {key: value for key, value in model.items() if key not in ('backbone', 'neck')}
    if 'LIFSpike' in str(rest) or 'backbone' not in model:
        raise ValueError(
            f'{name}: has neurons outside its backbone and neck, so it has no lif twin'
        )
    last = 'neck' if model.get('neck') else 'backbone'
    model['backbone'] = dict(type='RepeatInTime', module=model['backbone'], steps=LIF_STEPS)
    model[last] = dict(type='MeanOverTime', module=model[last], steps=LIF_STEPS)
    return model


def _is_ours(name: str) -> bool:
    """Tell whether a module takes an ``act_cfg`` and makes it the neuron where there is none."""
    module = MODELS.module_dict.get(name)
    return (
        inspect.isclass(module)
        and module.__module__.startswith('hoyer_det.')
        and 'act_cfg' in inspect.signature(module).parameters
    )


def _name(node: dict[str, Any]) -> str:
    """Return the class that a config builds, without scope."""
    kind = node.get('type', '')
    return kind.rsplit('.', 1)[-1] if isinstance(kind, str) else kind.__name__
