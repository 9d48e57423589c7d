"""Neuron settings go with the weights, and loading into other neurons is said."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.engine import NeuronSettingsHook
from hoyer_det.engine.neuron_settings import neuron_settings, settings_that_differ
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from tiny_ssd import build_ssd, train

SLOW = dict(optimizer=dict(type='SGD', lr=0.001))


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a detector whose neurons leave saturated potentials out of the extremum."""
    folder = tmp_path_factory.mktemp('trained')
    model = exclude(build_ssd())
    hooks = [NeuronSettingsHook(), dict(type='CheckpointHook', by_epoch=False, interval=1)]
    train(model, hooks, folder, 1, **SLOW)
    return folder / 'iter_1.pth'


def exclude(model: torch.nn.Module) -> torch.nn.Module:
    for layer in [m for m in model.modules() if hasattr(m, 'saturated')]:
        layer.saturated = 'exclude'
    return model


def run(model: torch.nn.Module, folder: Path) -> str:
    """Train by a runner that logs warnings to a file; return what it says of neurons."""
    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    class Listen(NeuronSettingsHook):
        def before_train(self, runner) -> None:
            MMLogger.get_current_instance().addHandler(Keep())
            super().before_train(runner)

    train(model, [Listen()], folder, 1, **SLOW)
    return '\n'.join(record for record in records if 'neurons' in record)


def test_checkpoint_holds_the_settings_and_loads_strictly(trained):
    checkpoint = torch.load(trained, weights_only=True)
    neurons = checkpoint['meta']['neurons']
    assert len(neurons) == 12
    assert neurons['neck.extra_layers.0.0.act'] == dict(
        extremum='layer',
        extremum_scale=1.0,
        saturated='exclude',
        surrogate_window=2.0,
        surrogate_height=0.5,
    )
    build_ssd().load_state_dict(checkpoint['state_dict'])


def test_backbone_of_other_neurons_is_said_once_with_both_values(trained, tmp_path):
    start = dict(type='Pretrained', checkpoint=str(trained), prefix='backbone.')
    text = run(build_ssd(init_cfg=start), tmp_path / 'a')
    assert str(trained) in text
    assert "saturated='exclude' there, 'clip' here, in 10 layers (first: stages.0.0.act)" in text
    assert text.count('saturated') == 1
    assert run(exclude(build_ssd(init_cfg=start)), tmp_path / 'b') == ''


def test_older_checkpoints_are_taken_as_they_are(trained):
    assert settings_that_differ({}, build_ssd()) == []


@pytest.mark.parametrize('meta, said', [(dict(neurons={}), 1), (dict(), 0)])
def test_start_from_a_relu_network_is_said(monkeypatch, meta, said):
    lines: list[str] = []
    monkeypatch.setattr(
        'hoyer_det.engine.neuron_settings.print_log', lambda text, **_: lines.append(text)
    )
    runner = SimpleNamespace(model=build_ssd(), _load_from='relu.pth')
    NeuronSettingsHook().after_load_checkpoint(runner, dict(meta=meta))
    assert len(lines) == said
    assert all('relu.pth: is of a network without spiking neurons' in line for line in lines)


def test_evaluation_minds_only_what_it_reads(trained):
    model = build_ssd()
    stored = neuron_settings(exclude(build_ssd()))
    assert settings_that_differ(stored, model, evaluation=True) == []
    stored['backbone.stages.0.0.act']['extremum'] = 'fixed'
    (fact,) = settings_that_differ(stored, model, evaluation=True)
    assert fact.startswith("extremum='fixed' there, 'layer' here, in 1 layers (first: backbone.st")


def backbone_neurons(path: Path) -> tuple[tuple, set]:
    """What a config's backbone is, and the settings of its neurons."""
    cfg = load_config(path, complete=False)  # some are for data of one's own
    backbone = cfg.model.get('detector', cfg.model).backbone
    with torch.device('meta'):
        model = MODELS.build(backbone)
    settings = {(s['extremum'], s['saturated']) for s in neuron_settings(model).values()}
    return (backbone.type.removesuffix('CIFAR'), backbone.get('depth')), settings


def test_pretraining_and_detection_have_the_same_neurons():
    pretrained = {}
    for path in (CONFIGS / 'pretrain').glob('*.py'):
        kind, settings = backbone_neurons(path)
        pretrained.setdefault(kind, set()).update(settings)
    assert len(pretrained) == 5
    compared = 0
    for path in CONFIGS.glob('hoyer_*_voc.py'):
        kind, settings = backbone_neurons(path)
        if kind in pretrained:
            assert settings == pretrained[kind], path.name
            compared += 1
    assert compared >= 4
