"""Builds any detector of MMDetection with spiking activations."""

import copy
from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from mmengine.logging import print_log
from torch import nn

from ..backbones.blocks import use_spiking_conv_modules
from .conversion import (
    ACTIVATIONS,
    Activation,
    check_act_cfg,
    convert_activations,
    rectifiers,
)
from .dry_run import dry_run


@MODELS.register_module()
def SpikingDetector(
    detector: dict[str, Any],
    parts: Sequence[str] | None = None,
    act_cfg: dict[str, Any] | None = None,
    data_preprocessor: dict[str, Any] | None = None,
) -> nn.Module:
    """Build a detector in which the activations of the named parts are ``HoyerSpike``.

    What comes back is the detector itself, of its own class. Its weights keep their names and the
    neurons add theirs, so a checkpoint of the original loads, with the neurons missing. An activation
    that runs several times in a forward pass (in a residual block, on several feature levels) becomes
    a neuron for each time, ``....relu.0.threshold``; to count them, a copy of the detector computes
    the loss of random images and predicts on others, which takes a second or a few. What was converted
    and what was left, and why, is logged as a table; see :func:`convert_activations` for the rules. On
    one of MMDetection's own configs::

        _base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
        custom_imports = dict(imports=['hoyer_det'], allow_failed_imports=False)
        model = dict(
            _delete_=True, type='SpikingDetector', detector=_base_.model, parts=['backbone']
        )

    Neurons in ``frozen_stages`` are frozen too: they fire at the clip threshold unless a checkpoint
    brings their average, so set ``frozen_stages=-1`` to train them. ``DetInferencer`` takes such a
    config as it is. ``init_detector`` wants a ``model.backbone`` unless it is given
    options: call ``init_detector(config, checkpoint, cfg_options={})``.

    Args:
        detector: Config of any detector.
        parts: Children of the detector to convert, such as ``['backbone', 'neck']``; dotted names
            such as ``'roi_head.bbox_head'`` reach further down. By default every child that holds an
            activation which can be converted.
        act_cfg: Config of the neuron, ``dict(type='HoyerSpike')`` by default.
        data_preprocessor: Preprocessor for a detector that names none. The ``Runner`` hands the one
            at the top of a config down in this way.

    Returns:
        The detector.

    Raises:
        ValueError: If the detector is no config, a part does not exist, is named twice, or holds no
            activation that can be converted, ``act_cfg`` is no ``HoyerSpike``, or the detector does
            not run on random images as far as its parts.
    """
    act_cfg = dict(type='HoyerSpike') if act_cfg is None else act_cfg
    check_act_cfg(act_cfg)
    if not isinstance(detector, dict) or 'type' not in detector:
        raise ValueError(
            'SpikingDetector: detector must be the config of a detector, a dict with a type, '
            f'got {_short(detector)}'
        )
    detector = copy.deepcopy(detector)  # detectors write into the configs of their parts
    if data_preprocessor is not None:
        detector.setdefault('data_preprocessor', data_preprocessor)
    model = MODELS.build(detector)
    chosen = _parts(model, parts)
    trace = dry_run(model, ACTIVATIONS, rectifiers(model, chosen))
    report = convert_activations(model, act_cfg, trace, chosen)
    for part in chosen:
        entries = [entry for entry in report if f'{entry.name}.'.startswith(f'{part}.')]
        if parts is not None and not any(entry.spiking for entry in entries):
            raise ValueError(
                f'SpikingDetector: part {part!r} of {type(model).__name__} holds no activation that '
                'can be converted; leave it out of parts' + _left(entries)
            )
        use_spiking_conv_modules(model.get_submodule(part))
    if not any(entry.spiking for entry in report):
        raise ValueError(
            f'SpikingDetector: {type(model).__name__} holds no activation that can be converted'
            + _left(report)
        )
    print_log(f'SpikingDetector: {type(model).__name__}\n{_table(report)}', logger='current')
    return model


def _parts(model: nn.Module, names: Sequence[str] | None) -> Sequence[str]:
    """Check the names of the parts to convert, and return them."""
    children = [name for name, _ in model.named_children()]
    if names is None:
        return children
    if isinstance(names, str) or not names:
        raise ValueError(
            f'SpikingDetector: parts must be a list of names such as {children}, got {names!r}'
        )
    for index, name in enumerate(names):
        for other in (*names[:index], *names[index + 1 :]):
            if f'{name}.'.startswith(f'{other}.'):
                raise ValueError(f'SpikingDetector: parts name {name!r} twice, by {other!r} too')
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules or not name:
            raise ValueError(
                f'SpikingDetector: {type(model).__name__} has no part {name!r}; it has '
                f'{", ".join(children)}'
            )
    return names


def _left(report: Sequence[Activation]) -> str:
    reasons = sorted({f'{entry.kind}: {entry.note}' for entry in report})
    return f' ({"; ".join(reasons)})' if reasons else ''


def _table(report: Sequence[Activation]) -> str:
    """Write the report as a table, a line for all equal entries of a part."""
    groups: dict[tuple, list[Activation]] = {}
    for entry in sorted(report, key=lambda entry: not entry.spiking):
        part = entry.name.split('.')[0]
        key = part, entry.spiking, entry.kind, entry.place, entry.note
        groups.setdefault(key, []).append(entry)
    rows = [('', 'places', 'neurons', 'activation', 'in', 'first', 'note')]
    for (_, spiking, kind, place, note), entries in groups.items():
        state = 'spiking' if spiking else 'left'
        neurons = sum(entry.neurons for entry in entries)
        rows.append((state, str(len(entries)), str(neurons), kind, place, entries[0].name, note))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
