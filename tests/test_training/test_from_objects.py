"""``train --from-objects``: a classifier of the objects, then the detector, gone on with after a kill."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS
from hoyer_det.commands import train
from hoyer_det.config import load_config
from hoyer_det.training.from_objects import FromObjects, classifier_config
from hoyer_det.training.resuming import how_to_go_on
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

CONFIG = 'configs/hoyer_ssd_vocformat.py'
OPTIONS = [
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'default_hooks.visualization.num_images=0',
    'model.backbone.width=0.125',
    'model.neck.in_channels=(64,128)',
    'model.neck.out_channels=(64,128,64,32)',
    'model.bbox_head.in_channels=(64,128,64,32)',
    'optim_wrapper.optimizer.lr=1e-9',
]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def check_same_convolutions(objects: Path, detector: Path) -> None:
    learned, own = weights(objects), weights(detector)
    shared = [name for name in learned if name.startswith('backbone.') and 'conv' in name]
    assert len(shared) == 8
    # The detector hardly learns at this rate, and shrinks weights even less.
    for name in shared:
        torch.testing.assert_close(learned[name], own[name], atol=1e-6, rtol=0)


def test_detector_starts_with_what_the_classifier_learned(
    voc_folder: Path, tmp_path: Path, run_tool: Callable
) -> None:
    work_dir = tmp_path / 'work'
    command = ['train', CONFIG, '--from-objects', '--object-epochs', 1, '--work-dir', work_dir]
    options = ['--cfg-options', f'data_root={voc_folder}', *OPTIONS]
    done = run_tool(*command, *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[-3:]
    assert [line.split()[0] for line in lines[:2]] == ['objects', 'detector']
    assert 'top1' in lines[0] and 'pascal_voc/mAP' in lines[1]

    objects, detector = work_dir / 'objects' / 'epoch_1.pth', work_dir / 'epoch_1.pth'
    check_same_convolutions(objects, detector)
    assert weights(objects)['head.fcs.0.weight'].shape == (3, 64)

    again = run_tool(*command, *options)
    assert again.returncode == 1 and again.stderr.count('\n') == 1
    assert 'go on with it by --from-objects --resume' in again.stderr
    note = work_dir / 'from_objects.json'
    content = json.loads(note.read_text())
    del content['stages']['detector']
    note.write_text(json.dumps(content))
    for path in (detector, work_dir / 'last_checkpoint'):
        path.unlink()
    before = objects.stat().st_mtime
    resumed = run_tool(*command, '--resume', *options)
    assert resumed.returncode == 0, resumed.stderr
    assert objects.stat().st_mtime == before and detector.is_file()


def test_relu_twin_starts_with_the_objects_too(
    voc_folder: Path, tmp_path: Path, run_tool: Callable
) -> None:
    work_dir = tmp_path / 'work'
    command = ['train', CONFIG, '--twin', 'relu', '--from-objects', '--object-epochs', 1]
    options = ['--cfg-options', f'data_root={voc_folder}', *OPTIONS]
    done = run_tool(*command, '--work-dir', work_dir, *options)
    assert done.returncode == 0, done.stderr
    assert 'spike' not in done.stdout
    check_same_convolutions(work_dir / 'objects' / 'epoch_1.pth', work_dir / 'epoch_1.pth')


@pytest.mark.parametrize('twin', [None, 'relu', 'onebit'])
@pytest.mark.parametrize('name', ['hoyer_ssd_vocformat', 'hoyer_retinanet_r18_vocformat'])
def test_classifier_has_the_detectors_backbone(name, twin, voc_folder):
    cfg = load_config(CONFIGS / f'{name}.py', {'data_root': str(voc_folder)}, twin)
    made = classifier_config(cfg, 7)
    assert made.model.head.num_classes == 3
    assert (made.train_cfg.max_epochs, made.param_scheduler[1].T_max) == (7, 7)
    init_default_scope('mmdet')
    with torch.device('meta'):
        classifier, detector = MODELS.build(made.model), MODELS.build(cfg.model)
    detector = getattr(detector, 'detector', detector)
    own, theirs = classifier.backbone.state_dict(), detector.backbone.state_dict()
    assert all(theirs[key].shape == value.shape for key, value in own.items() if key in theirs)
    assert sum(key in theirs for key in own) > 0.8 * len(own)
    hooks = {hook['type']: hook for hook in made.custom_hooks}
    regularizer = hooks.get('HoyerRegularizerHook', {}).get('weight')
    assert regularizer == {None: 1e-8, 'relu': None, 'onebit': 0.0}[twin]


def test_other_backbones_and_no_epochs_are_refused(tmp_path: Path, voc_folder: Path) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_vocformat.py', {'data_root': str(voc_folder)})
    cfg.work_dir = str(tmp_path)
    with pytest.raises(ValueError, match='--object-epochs 0: must be at least 1'):
        FromObjects(cfg, 0)
    cfg.model.neck.in_channels = (1, 2)
    with pytest.raises(Exception, match='out_channels must begin with in_channels'):
        FromObjects(cfg)
    cfg.model.neck.in_channels = (128, 256)
    max_epochs = cfg.train_cfg.pop('max_epochs')
    with pytest.raises(ValueError, match='train_cfg has neither max_epochs nor max_iters; set one'):
        FromObjects(cfg)
    cfg.train_cfg.max_epochs = max_epochs
    cfg.model.backbone = dict(type='Darknet', depth=53)
    with pytest.raises(ValueError, match='knows HoyerVGG and HoyerResNet, the backbone is Darknet'):
        FromObjects(cfg)
    over_time = load_config(
        CONFIGS / 'hoyer_ssd_vocformat.py', {'data_root': str(voc_folder)}, 'lif'
    )
    with pytest.raises(ValueError, match='does not go with --twin lif'):
        classifier_config(over_time, 1)
    with pytest.raises(ValueError, match='the config is that of a classifier'):
        classifier_config(load_config(CONFIGS / 'pretrain' / 'digits_hoyer_vgg11.py'), 1)


def test_flags_and_steps_of_the_detector_hold_for_the_classifier(voc_folder: Path) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_vocformat.py', {'data_root': str(voc_folder)})
    cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    cfg.auto_scale_lr.enable = True
    cfg.sync_bn = 'torch'
    cfg.model.backbone.frozen_stages = 1
    made = classifier_config(cfg, 1)
    assert (made.optim_wrapper.type, made.optim_wrapper.loss_scale) == (
        'AmpOptimWrapper',
        'dynamic',
    )
    assert made.auto_scale_lr == dict(base_batch_size=32, enable=True) and made.sync_bn == 'torch'
    assert 'frozen_stages' not in made.model.backbone


def test_other_weights_and_other_trainings_are_refused(tmp_path: Path, voc_folder: Path) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_vocformat.py', {'data_root': str(voc_folder)})
    cfg.work_dir = str(tmp_path)
    note = tmp_path / 'from_objects.json'
    note.write_text('{"plan')
    with pytest.raises(ValueError, match='from_objects.json: cannot be read as the note'):
        FromObjects(cfg, resume=True)
    note.unlink()
    (tmp_path / 'epoch_1.pth').touch()
    with pytest.raises(ValueError, match='epoch_1.pth: is of a training without --from-objects'):
        FromObjects(cfg, resume=True)
    (tmp_path / 'epoch_1.pth').unlink()
    (tmp_path / 'from_twin.json').touch()
    with pytest.raises(
        ValueError, match='from_twin.json: .* a training by --from-twin; go on with it by'
    ):
        FromObjects(cfg, resume=True)
    (tmp_path / 'from_twin.json').unlink()
    cfg.model.backbone.init_cfg = dict(type='FromANN', checkpoint='torchvision://vgg11_bn')
    with pytest.raises(ValueError, match='add `--cfg-options model.backbone.init_cfg=None`'):
        FromObjects(cfg)


@pytest.mark.parametrize(
    ('hook', 'message'),
    [
        (None, r'default_hooks.checkpoint=None: with --from-objects each stage goes on from'),
        (dict(interval=-1, save_last=False), r'default_hooks.checkpoint.save_last=False: with'),
        (dict(save_last=False), r'default_hooks.checkpoint.save_last=False: with'),
        (dict(interval=1, save_last=False), None),
        (dict(interval=-1), None),
    ],
)
def test_last_epoch_must_be_saved(
    hook: dict | None, message: str | None, tmp_path: Path, voc_folder: Path
) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_vocformat.py', {'data_root': str(voc_folder)})
    cfg.work_dir = str(tmp_path)
    cfg.default_hooks.checkpoint = hook and dict(type='CheckpointHook', **hook)
    with nullcontext() if message is None else pytest.raises(ValueError, match=message):
        FromObjects(cfg)


def test_stages_of_other_settings_are_refused_on_resume(
    tmp_path: Path, voc_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_vocformat.py', {'data_root': str(voc_folder)})
    cfg.work_dir = str(tmp_path)
    FromObjects(cfg)._write_note()
    cfg.train_dataloader.num_workers = 7  # how fast it is does not matter
    FromObjects(cfg, resume=True)
    cfg.optim_wrapper.optimizer.lr = 1e-5
    with pytest.raises(ValueError, match=r'has optim_wrapper.optimizer.lr=0.002, now it is 1e-05;'):
        FromObjects(cfg, resume=True)
    cfg.optim_wrapper.optimizer.lr = 2e-3
    cfg.train_dataloader.dataset.data_root = 'elsewhere'
    capsys.readouterr()
    FromObjects(cfg, resume=True)  # the data may have moved
    assert capsys.readouterr().out.startswith(
        "train_dataloader.dataset.data_root='elsewhere': was "
    )


def test_iterations_of_the_detector_are_part_of_the_plan(tmp_path: Path, voc_folder: Path) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_vocformat.py', {'data_root': str(voc_folder)})
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)
    training = FromObjects(cfg)
    training.stages = dict(detector=dict(checkpoint='iter_4.pth', metrics={}))
    assert '4 iterations' in training.summary()
    training._write_note()
    cfg.train_cfg.max_iters = 8
    with pytest.raises(
        ValueError, match="lengths.detector='4 iterations', now it is '8 iterations'"
    ):
        FromObjects(cfg, resume=True)


def test_batch_of_the_detector_is_checked_before_the_classifier_is_trained(
    tmp_path: Path, voc_folder: Path, run_tool: Callable
) -> None:
    work_dir = tmp_path / 'work'
    options = ('--cfg-options', f'data_root={voc_folder}', 'train_dataloader.batch_size=99')
    done = run_tool('train', CONFIG, '--from-objects', '--work-dir', work_dir, *options)
    assert (
        done.returncode == 1
        and 'do not fill one batch of train_dataloader.batch_size=99' in done.stderr
    )
    assert 'objects' not in done.stderr and not work_dir.exists()


def test_batch_of_the_detector_is_that_of_each_process(
    tmp_path: Path, voc_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=2).items():
        monkeypatch.setenv(name, str(value))
    line = ['train', CONFIG, '--from-objects', '--launcher', 'pytorch', '--work-dir']
    options = ['--cfg-options', f'data_root={voc_folder}', 'train_dataloader.batch_size=3']
    monkeypatch.setattr('sys.argv', [*line, str(tmp_path / 'work'), *options])
    monkeypatch.setattr(FromObjects, 'run', lambda *args: pytest.fail('trains a classifier'))
    with pytest.raises(SystemExit, match='4 training images do not fill .* in each of 2 processes'):
        train.main()
    assert not (tmp_path / 'work').exists()


def test_interrupted_before_its_first_checkpoint(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr('sys.argv', ['hoyer-det train', 'a.py', '--from-objects'])
    assert how_to_go_on(str(tmp_path), begun=True).endswith('train a.py --from-objects --resume')
    assert how_to_go_on(str(tmp_path)).endswith('train a.py --from-objects')


def test_plain_training_is_refused_in_the_folder_of_one_in_stages(
    tmp_path: Path, voc_folder: Path, run_tool: Callable
) -> None:
    (tmp_path / 'from_objects.json').touch()
    done = run_tool(
        'train',
        CONFIG,
        '--resume',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        f'data_root={voc_folder}',
    )
    assert done.returncode == 1 and 'go on with it by --from-objects --resume' in done.stderr


def test_a_single_checkpoint_is_not_resumed_from(monkeypatch) -> None:
    monkeypatch.setattr('sys.argv', ['train', CONFIG, '--from-objects', '--resume', 'x.pth'])
    with pytest.raises(ValueError, match='--resume x.pth: with --from-objects'):
        train.check_arguments(train.parse_args())
