"""``train --from-twin``: three stages in one command, gone on with after a kill between them."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CONFIGS
from hoyer_det.config import load_config
from hoyer_det.training.from_twin import FromTwin, check_teacher, load_twin
from mmdet.models.dense_heads import FCOSHead
from torch import nn

CONFIG = 'configs/hoyer_ssd_vocformat.py'
OPTIONS = [
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=5',
    'default_hooks.logger.interval=1',
    'default_hooks.visualization.num_images=0',
    'model.backbone.width=0.0625',
    'model.neck.in_channels=(32,64)',
    'model.neck.out_channels=(32,64,32,32)',
    'model.bbox_head.in_channels=(32,64,32,32)',
]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def test_stages_and_a_kill_between_them(
    voc_folder: Path, tmp_path: Path, run_tool: Callable
) -> None:
    work_dir = tmp_path / 'work'
    command = ['train', CONFIG, '--from-twin', '--twin-share', 0.5, '--work-dir', work_dir]
    options = ['--cfg-options', f'data_root={voc_folder}', *OPTIONS]
    done = run_tool(*command, *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[-4:]
    assert [line.split()[0] for line in lines[:3]] == ['twin', 'conversion', 'fine-tuning']
    assert all('pascal_voc/mAP 0.' in line for line in lines[:3])

    twin, converted = work_dir / 'twin' / 'epoch_1.pth', work_dir / 'conversion' / 'converted.pth'
    tuned = work_dir / 'epoch_1.pth'
    spiking = {name for name in weights(tuned) if name.endswith('.threshold')}
    assert spiking and spiking <= weights(converted).keys() and not spiking & weights(twin).keys()
    assert not any('teacher' in name for name in weights(tuned))
    assert weights(tuned).keys() == weights(converted).keys()
    log = next(work_dir.glob('[0-9]*/*.log')).read_text()
    assert 'loss_distill' in log and f'{converted}' in log

    # The same again is refused, and so is another plan in the same folder.
    again = run_tool(*command, *options)
    assert (
        again.returncode == 1
        and again.stderr.count('\n') == 1
        and '--from-twin --resume' in again.stderr
    )
    other = run_tool(*command, '--no-teacher', '--resume', *options)
    assert (
        other.returncode == 1 and 'the training there has teacher=True, now it is' in other.stderr
    )

    # As if killed after the twin: the twin stays as it is, the rest is done again.
    note = work_dir / 'from_twin.json'
    content = json.loads(note.read_text())
    content['stages'] = {'twin': content['stages']['twin']}
    note.write_text(json.dumps(content))
    before = twin.stat().st_mtime
    for path in (converted, tuned, work_dir / 'last_checkpoint'):
        path.unlink()
    resumed = run_tool(*command, '--resume', *options)
    assert resumed.returncode == 0, resumed.stderr
    assert twin.stat().st_mtime == before and tuned.is_file()
    stages = json.loads(note.read_text())['stages']
    assert list(stages) == ['twin', 'conversion', 'fine-tuning']


def test_schedules_are_shortened_and_starts_dropped(tmp_path: Path) -> None:
    cfg = load_config(CONFIGS / 'pretrain' / 'fine_tuning' / 'from_ann_ssd_shapes.py')
    cfg.work_dir = str(tmp_path)
    kaiming, pretrained = (
        dict(type='Kaiming', layer='Conv2d'),
        dict(type='Pretrained', checkpoint='a.pth'),
    )
    cfg.model.neck.init_cfg = [kaiming, pretrained]
    cfg.custom_hooks.append(dict(type='PipelineSwitchHook', switch_epoch=20, switch_pipeline=[]))
    del cfg.param_scheduler[1]['begin']
    training = FromTwin(cfg, 0.75)
    twin, tuned = training._twin, training._tuned
    assert (twin.train_cfg.max_epochs, tuned.train_cfg.max_epochs) == (18, 6)
    assert [s.T_max for s in (twin.param_scheduler[1], tuned.param_scheduler[1])] == [18, 6]
    assert twin.param_scheduler[0].end == tuned.param_scheduler[0].end == 50  # iterations
    assert [c.custom_hooks[-1].switch_epoch for c in (twin, tuned)] == [15, 5]
    assert twin.optim_wrapper.optimizer.lr == 4 * tuned.optim_wrapper.optimizer.lr
    assert tuned.model.neck.init_cfg == [kaiming]
    assert 'init_cfg' not in tuned.model.backbone and 'init_cfg' in twin.model.backbone
    assert 'CalibrateFromANNHook' not in [hook.type for hook in tuned.custom_hooks]
    assert cfg.train_cfg.max_epochs == 24  # the config itself stays as it is


@pytest.mark.parametrize(
    ('share', 'message'), [(0.0, 'between 0 and 1'), (1.5, 'between'), (0.01, 'at least 1')]
)
def test_impossible_shares_are_refused(share: float, message: str, tmp_path: Path) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_shapes.py')
    cfg.work_dir = str(tmp_path)
    with pytest.raises(ValueError, match=message):
        FromTwin(cfg, share)


@pytest.mark.parametrize('name', ['hoyer_faster_rcnn_r50_voc', 'pretrain/digits_hoyer_vgg11'])
def test_what_cannot_teach_is_refused_before_its_training(name: str, tmp_path: Path) -> None:
    cfg = load_config(CONFIGS / f'{name}.py', complete=False)
    cfg.work_dir = str(tmp_path)
    with pytest.raises(ValueError, match='has no bbox_head and cannot teach; add --no-teacher'):
        FromTwin(cfg, 0.5)
    FromTwin(cfg, 0.5, teacher=False)


@pytest.mark.parametrize('teacher', [True, False])
def test_teacher_may_change_until_fine_tuning_has_a_checkpoint(
    teacher: bool, tmp_path: Path
) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_shapes.py', complete=False)
    cfg.work_dir = str(tmp_path)
    FromTwin(cfg, 0.5, teacher)._write_note()
    for stage in ('twin', 'conversion'):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / 'epoch_1.pth').touch()
    changed = FromTwin(cfg, 0.5, not teacher, resume=True)
    changed._write_note()
    assert json.loads((tmp_path / 'from_twin.json').read_text())['plan']['teacher'] is not teacher
    with pytest.raises(ValueError, match='has epochs.0=12, now it is 18'):
        FromTwin(cfg, 0.75, teacher, resume=True)
    (tmp_path / 'epoch_1.pth').touch()
    with pytest.raises(ValueError, match=f'has teacher={not teacher}, now it is {teacher}'):
        FromTwin(cfg, 0.5, teacher, resume=True)


class Caught(Exception):
    pass


def test_conversion_starts_from_the_twin_alone(tmp_path: Path) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_shapes.py', complete=False)
    cfg.update(work_dir=str(tmp_path), load_from='other.pth', resume=True)
    training, made = FromTwin(cfg, 0.5), []

    def make_runner(stage):
        made.append((stage.load_from, stage.resume))
        raise Caught

    with pytest.raises(Caught):
        training._convert(make_runner)
    assert made == [(None, False)]  # MMEngine would load them when it validates


@pytest.mark.parametrize('teacher, stage', [(True, 'twin'), (False, 'fine-tuning')])
def test_twin_that_is_gone_is_needed_by_a_teacher_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: bool, stage: str
) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_shapes.py', complete=False)
    cfg.work_dir = str(tmp_path)
    training = FromTwin(cfg, 0.5, teacher)
    (tmp_path / 'converted.pth').touch()
    training.stages = dict(
        twin=dict(checkpoint='gone.pth', metrics={}),
        conversion=dict(checkpoint='converted.pth', metrics={}),
    )

    def train(name, *_):
        raise Caught(name)

    monkeypatch.setattr(training, '_train', train)
    with pytest.raises(Caught, match=stage):
        training.run(lambda cfg: None, None)


def test_last_epoch_must_be_saved(tmp_path: Path) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_shapes.py', complete=False)
    cfg.work_dir = str(tmp_path)
    cfg.default_hooks.checkpoint.update(interval=-1, save_last=False)
    with pytest.raises(ValueError, match='save_last=False: with --from-twin each stage goes on'):
        FromTwin(cfg, 0.5)


def test_head_that_cannot_teach_is_refused_before_its_training(
    voc_folder: Path, tmp_path: Path, run_tool: Callable
) -> None:
    file, work_dir = tmp_path / 'fcos.py', tmp_path / 'work'
    file.write_text(FCOS.format(base=CONFIGS / 'hoyer_ssd_vocformat.py'))
    options = [option for option in OPTIONS if not option.startswith('model.')]
    command = ['train', file, '--from-twin', '--twin-share', 0.5, '--work-dir', work_dir]
    done = run_tool(*command, '--cfg-options', f'data_root={voc_folder}', *options)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        f'error: {file}: the FCOSHead of the ReLU twin returns other scores or boxes in training than in '
        'evaluation and cannot teach; add --no-teacher'
    )
    assert not work_dir.exists()


FCOS = """
_base_ = '{base}'
model = dict(
    _delete_=True,
    type='FCOS',
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=dict(type='HoyerResNet', depth=18, base_channels=8, out_indices=(1, 2)),
    neck=dict(type='HoyerFPN', in_channels=[16, 32], out_channels=8, num_outs=2),
    bbox_head=dict(
        type='FCOSHead', num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1, strides=[8, 16],
        regress_ranges=((-1, 64), (64, 1e8)), norm_on_bbox=True, norm_cfg=None,
    ),
)
"""


class Twin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bbox_head = FCOSHead(2, 3, feat_channels=4, stacked_convs=1, norm_cfg=None)
        self.frozen = nn.Dropout().eval()

    def data_preprocessor(self, batch: dict) -> dict:
        return dict(inputs=torch.stack(batch['inputs']))

    def extract_feat(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.frozen(images),) * 5


class Drawing:
    def __getitem__(self, index: int) -> dict:
        size = random.randint(4, 5), np.random.randint(4, 6)
        return dict(inputs=torch.rand(3, *size))


def test_check_of_the_teacher_leaves_all_as_it_was() -> None:
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=Drawing()))
    runner = SimpleNamespace(model=Twin(), train_loop=loop)
    modes = [module.training for module in runner.model.modules()]
    drawn = []
    for check in (lambda *args: None, check_teacher):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        check(runner, 'config.py')
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
    assert [module.training for module in runner.model.modules()] == modes


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / 'other.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(2))), file)
    with pytest.raises(ValueError, match='not the ReLU twin of Linear: 2 weights'):
        load_twin(nn.Linear(1, 1).requires_grad_(False), file)
