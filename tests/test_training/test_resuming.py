"""What a resumed training says of settings that are not those of its checkpoint."""

import copy

import pytest
import torch
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.training.resuming import resume_from
from mmdet.registry import MODELS
from mmengine.config import Config


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> str:
    """A checkpoint of the demo's training, seed 5."""
    cfg = demo()
    path = tmp_path_factory.mktemp('work') / 'epoch_1.pth'
    weights = MODELS.build(copy.deepcopy(cfg.model)).state_dict()
    torch.save(dict(state_dict=weights, meta=dict(cfg=cfg.pretty_text, seed=5)), path)
    return str(path)


def demo(options: dict[str, object] | None = None) -> Config:
    return load_config(
        CONFIGS / 'hoyer_ssd_shapes.py', {'randomness.seed': 5, **(options or {})}, complete=False
    )


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({}, ''),
        ({'train_dataloader.num_workers': 7, 'default_hooks.logger.interval': 3}, ''),
        ({'randomness.seed': 6}, 'randomness.seed=6: a resumed training keeps its seed, 5'),
        ({'custom_hooks.1.weight': 1e-3}, 'custom_hooks.1.weight=0.001: was '),
        (
            {'train_dataloader.dataset.data_root': 'there'},
            "train_dataloader.dataset.data_root='there': was ",
        ),
    ],
    ids=str,
)
def test_other_settings_are_said(checkpoint: str, options, said: str, capsys) -> None:
    cfg = demo(options)
    resume_from(cfg, checkpoint)
    out = capsys.readouterr().out
    assert out.startswith(said) and out.count('\n') == bool(said)
    assert cfg.randomness.seed == 5 and cfg.load_from == checkpoint and cfg.resume


def test_a_complete_training_is_said(checkpoint: str, tmp_path, capsys) -> None:
    done = str(tmp_path / 'epoch_24.pth')
    content = torch.load(checkpoint)
    content['meta'].update(epoch=24, iter=1440)
    torch.save(content, done)
    resume_from(demo(), done)
    assert f'{done}: is complete, train_cfg.max_epochs=24 is reached' in capsys.readouterr().out
    resume_from(demo({'train_cfg.max_epochs': 25}), done)
    assert 'complete' not in capsys.readouterr().out


def test_where_nothing_is_there_yet_it_begins_as_without(capsys) -> None:
    cfg = demo({'load_from': 'start.pth'})
    resume_from(cfg, None)
    assert (cfg.load_from, cfg.resume) == ('start.pth', False)


@pytest.mark.parametrize('key', ['train_dataloader.batch_size', 'optim_wrapper.optimizer.lr'])
def test_other_steps_are_refused(checkpoint: str, key: str) -> None:
    with pytest.raises(ValueError, match=f'was trained with {key}=.*, now it is 3, .*load_from='):
        resume_from(demo({key: 3}), checkpoint)
