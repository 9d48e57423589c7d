"""Wrong input to the command lines: one clear line, an exit code, and nothing left behind."""

import importlib.util
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, write_split, write_voc_image
from hoyer_det.commands.errors import one_line_errors
from hoyer_det.config import load_config
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader, Dataset

CONFIGS = REPOSITORY / 'configs'
VOC_FORMAT = CONFIGS / 'hoyer_ssd_vocformat.py'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
Fails = Callable[..., str]


@pytest.fixture
def fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Fails:
    """Run a tool in an otherwise empty folder; return its one line of error.

    A run that has ``started`` may leave its log.
    """
    monkeypatch.chdir(tmp_path)
    for variable in ('LOCAL_RANK', 'HOYER_DET_TRACEBACK', 'RANK'):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv('LOCAL_RANK', '0')  # so that what the tools set is taken back

    def run(tool: str, *arguments: object, started: bool = False) -> str:
        spec = importlib.util.spec_from_file_location(tool, REPOSITORY / 'tools' / f'{tool}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *map(str, arguments)])
        before = sorted(tmp_path.rglob('*'))
        with pytest.raises(SystemExit) as exit_info:
            module.main()
        output, errors = capsys.readouterr()
        # Python itself prints a text given to sys.exit on stderr, and exits with 1.
        code = exit_info.value.code
        assert code not in (0, None)
        errors += code if isinstance(code, str) else ''
        lines = [line for line in errors.splitlines() if 'error:' in line]
        assert len(lines) == 1, errors
        assert 'Traceback' not in output + errors
        assert started or sorted(tmp_path.rglob('*')) == before
        return lines[0]

    return run


def options(root: Path, *more: str) -> list[str]:
    """Point a config to a folder; nothing here is slow or needs another process."""
    name = uuid.uuid4().hex
    return [
        '--cfg-options',
        f'data_root={root}',
        f'experiment_name={name}',  # MMEngine keeps loggers and visualizers by name
        f'visualizer.name={name}',
        *(f'{loader}.num_workers=0' for loader in LOADERS),
        *(f'{loader}.persistent_workers=False' for loader in LOADERS),
        'train_dataloader.batch_size=2',
        *more,
    ]


def save_checkpoint(path: Path, root: Path, config: Path = VOC_FORMAT, **changes: object) -> Path:
    """Save the untrained model of a config, as the suite would have saved it after training."""
    cfg = load_config(
        config, {'data_root': str(root), **changes.pop('options', {})}, changes.pop('twin', None)
    )
    init_default_scope('mmdet')
    classes = changes.get('classes', cfg.test_dataloader.dataset.metainfo.classes)
    state = MODELS.build(cfg.model).state_dict()
    meta = dict(dataset_meta=dict(classes=classes))
    torch.save(dict(state_dict=state, optimizer=dict(), meta=meta), path)
    return path


# ------------------------------------------------------------------------------------------------
# As a user sees it
# ------------------------------------------------------------------------------------------------


def check_one_line(result: subprocess.CompletedProcess[str], part: str) -> None:
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if 'error:' in line]
    assert line.startswith('error: ') and part in line
    assert 'Traceback' not in result.stdout + result.stderr


def test_train_that_stops_after_its_log_was_opened(
    tmp_path: Path, voc_folder: Path, run_tool: Callable
) -> None:
    flags = options(voc_folder, 'train_dataloader.batch_size=5')
    work_dir = tmp_path / 'runs' / 'first'
    result = run_tool('train', VOC_FORMAT, '--work-dir', work_dir, *flags)
    check_one_line(result, 'batch_size=5')
    assert not work_dir.parent.exists()


def test_evaluation_of_a_file_that_is_no_checkpoint(
    tmp_path: Path, voc_folder: Path, run_tool: Callable
) -> None:
    notes, work_dir = tmp_path / 'notes.txt', tmp_path / 'work'
    notes.write_text('no checkpoint')
    flags = options(voc_folder)
    result = run_tool('test', VOC_FORMAT, notes, '--work-dir', work_dir, *flags)
    check_one_line(result, 'notes.txt: cannot be read as a checkpoint')
    assert not work_dir.exists()


# ------------------------------------------------------------------------------------------------
# Config, options and data
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_missing_config(fails: Fails, tool: str) -> None:
    more = ['any.pth'] if tool == 'test' else []
    assert 'configs/no_such.py: no such config' in fails(tool, 'configs/no_such.py', *more)


@pytest.mark.parametrize(
    'config, folder, command',
    [
        ('hoyer_ssd_voc.py', 'data/VOCdevkit', 'voc2007 voc2012`'),
        ('hoyer_ssd_coco.py', 'data/coco', 'coco`'),
    ],
)
def test_missing_data_set(fails: Fails, config: str, folder: str, command: str) -> None:
    line = fails('train', CONFIGS / config)
    assert folder in line and f'`hoyer-det download-data {command}' in line
    assert folder in fails('test', CONFIGS / config, 'any.pth')


def test_folder_is_missing_or_not_in_voc_layout(fails: Fails, tmp_path: Path) -> None:
    assert 'nowhere' in fails('train', VOC_FORMAT, '--cfg-options', 'data_root=nowhere')
    (tmp_path / 'my, data').mkdir()  # comma and space would make a list of it
    line = fails('train', VOC_FORMAT, '--cfg-options', 'data_root=my, data')
    assert 'my, data/Annotations: no *.xml files' in line


def test_data_root_for_a_config_without(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / 'plain.py').write_text('model = dict()\n')
    line = fails('train', 'plain.py', '--cfg-options', 'data_root=data')
    assert 'plain.py: has no data_root' in line


@pytest.mark.parametrize('split', ['trainval', 'test'])
def test_list_names_an_image_that_is_not_there(fails: Fails, voc_folder: Path, split: str) -> None:
    write_split(voc_folder, split, ['image0', 'image1', 'lost'])
    line = fails('train', VOC_FORMAT, *options(voc_folder))
    assert 'JPEGImages/lost' in line and f'{split}.txt' in line


@pytest.mark.parametrize('image', ['image0', 'image5'])
@pytest.mark.parametrize('classes', [False, True])
def test_broken_annotation(fails: Fails, voc_folder: Path, image: str, classes: bool) -> None:
    (voc_folder / 'Annotations' / f'{image}.xml').write_text('<annotation><object>')
    given = 'train_dataloader.dataset.metainfo.classes=[cell,dot,ring]'
    more = [given] if classes else []
    assert f'{image}.xml: ' in fails('train', VOC_FORMAT, *options(voc_folder, *more))


def test_class_that_is_not_among_those_given(fails: Fails, voc_folder: Path) -> None:
    given = 'train_dataloader.dataset.metainfo.classes=[cell,dot]'
    line = fails('train', VOC_FORMAT, *options(voc_folder, given))
    assert "class 'ring' is not among the classes" in line and "('cell', 'dot')" in line


def test_fewer_images_than_a_batch(fails: Fails, voc_folder: Path) -> None:
    line = fails('train', VOC_FORMAT, *options(voc_folder, 'train_dataloader.batch_size=5'))
    assert '4 training images' in line and 'batch_size=5' in line


@pytest.mark.parametrize('split', ['trainval', 'test'])
def test_empty_list(fails: Fails, voc_folder: Path, split: str) -> None:
    write_split(voc_folder, split, [])
    assert f'{split}.txt' in fails('train', VOC_FORMAT, *options(voc_folder))


def test_list_without_objects(fails: Fails, voc_folder: Path) -> None:
    write_voc_image(voc_folder, 'image0', [])
    write_split(voc_folder, 'trainval', ['image0'])
    line = fails('train', VOC_FORMAT, *options(voc_folder))
    assert 'trainval.txt: no image left of 1' in line


def test_image_that_cannot_be_decoded(fails: Fails, voc_folder: Path) -> None:
    write_split(voc_folder, 'trainval', ['image0', 'image1'])
    (voc_folder / 'JPEGImages' / 'image1.jpg').write_text('no image')
    assert 'image1.jpg' in fails('train', VOC_FORMAT, *options(voc_folder), started=True)


class Faulty(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise FileNotFoundError('lost.jpg: no such image')


def test_error_in_a_worker_process_is_one_line_as_well() -> None:
    with pytest.raises(SystemExit) as exit_info, one_line_errors():
        next(iter(DataLoader(Faulty(), num_workers=1)))
    message = str(exit_info.value.code)
    assert message.startswith('error: ') and message.endswith('lost.jpg: no such image')
    assert 'Traceback' not in message and '\n' not in message


@pytest.mark.parametrize(
    'option, named',
    [
        ('train_cfg.max_epoch=3', 'max_epoch'),
        ('train_cgf.max_epochs=3', 'train_cgf'),
        ('model.backbone.widht=0.5', 'widht'),
        ('model.backbone.type=HoyerVVG', 'HoyerVVG'),
        ('train_dataloader.dataset.type=NoSuchDataset', 'NoSuchDataset'),
        ('model.backbone.depth=12', 'depth must be one of'),
        ('optim_wrapper.optimizer.lrr=1', 'lrr'),
        ('no_equals_sign', 'no_equals_sign'),
    ],
)
def test_wrong_option(fails: Fails, voc_folder: Path, option: str, named: str) -> None:
    assert named in fails('train', VOC_FORMAT, *options(voc_folder, option))


@pytest.mark.skipif(torch.cuda.is_available(), reason='mixed precision works on a GPU')
def test_mixed_precision_without_a_gpu(fails: Fails, voc_folder: Path) -> None:
    assert '--amp' in fails('train', VOC_FORMAT, '--amp', *options(voc_folder))


def test_auto_scale_lr_without_base(fails: Fails, voc_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / 'no_base.py'
    file.write_text(f'_base_ = {str(VOC_FORMAT)!r}\nauto_scale_lr = dict(_delete_=True)\n')
    line = fails('train', file, '--auto-scale-lr', *options(voc_folder))
    assert 'auto_scale_lr.base_batch_size' in line


def test_only_what_is_new_is_removed(fails: Fails, voc_folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / 'work' / 'earlier.txt'
    kept.parent.mkdir()
    kept.write_text('a log')
    flags = options(voc_folder, 'train_dataloader.batch_size=5')
    fails('train', VOC_FORMAT, '--work-dir', kept.parent, *flags)
    assert kept.read_text() == 'a log'


# ------------------------------------------------------------------------------------------------
# Checkpoints
# ------------------------------------------------------------------------------------------------


def test_missing_checkpoint(fails: Fails, voc_folder: Path) -> None:
    flags = options(voc_folder)
    assert 'lost.pth: no such checkpoint' in fails('test', VOC_FORMAT, 'lost.pth', *flags)
    line = fails('train', VOC_FORMAT, '--resume', 'lost.pth', *flags)
    assert 'lost.pth: no such checkpoint' in line
    line = fails('train', VOC_FORMAT, *flags, 'load_from=lost.pth')
    assert 'lost.pth' in line


def test_newest_checkpoint_is_gone(fails: Fails, voc_folder: Path, tmp_path: Path) -> None:
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'last_checkpoint').write_text('epoch_7.pth')
    flags = ['--resume', '--work-dir', 'work', *options(voc_folder)]
    assert 'epoch_7.pth: no such checkpoint' in fails('train', VOC_FORMAT, *flags)


def test_file_that_is_no_checkpoint(fails: Fails, voc_folder: Path, tmp_path: Path) -> None:
    (tmp_path / 'notes.txt').write_text('not a checkpoint\nat all')
    line = fails('test', VOC_FORMAT, 'notes.txt', *options(voc_folder))
    assert 'notes.txt: cannot be read as a checkpoint' in line
    torch.save([1, 2], tmp_path / 'list.pth')
    line = fails('test', VOC_FORMAT, 'list.pth', *options(voc_folder))
    assert 'list.pth' in line and 'list' in line


def test_checkpoint_of_another_network(fails: Fails, voc_folder: Path, tmp_path: Path) -> None:
    flags = options(voc_folder)
    spiking = save_checkpoint(tmp_path / 'spiking.pth', voc_folder)
    relu = save_checkpoint(tmp_path / 'relu.pth', voc_folder, twin='relu')
    line = fails('test', VOC_FORMAT, relu, *flags)
    assert 'weights missing' in line and 'threshold' in line
    line = fails('test', VOC_FORMAT, spiking, '--twin', 'relu', *flags)
    assert 'unexpected' in line and 'threshold' in line
    assert 'threshold' in fails('train', VOC_FORMAT, '--resume', relu, *flags)
    narrow = {
        'model.backbone.width': 0.125,
        'model.neck.in_channels': (64, 128),
        'model.neck.out_channels': (64, 128, 128, 64),
        'model.bbox_head.in_channels': (64, 128, 128, 64),
    }
    other = save_checkpoint(tmp_path / 'narrow.pth', voc_folder, options=narrow)
    line = fails('test', VOC_FORMAT, other, *flags)
    assert 'of another shape' in line and 'instead of' in line


def test_training_starts_from_weights_that_fit(
    fails: Fails, voc_folder: Path, tmp_path: Path
) -> None:
    good = save_checkpoint(tmp_path / 'good.pth', voc_folder)
    (tmp_path / 'half.pth').write_bytes(good.read_bytes()[:9000])
    flags = options(voc_folder)
    line = fails('train', VOC_FORMAT, *flags, 'load_from=half.pth')
    assert 'half.pth: cannot be read as a checkpoint' in line
    line = fails('train', VOC_FORMAT, *flags, f'load_from={good}', 'model.backbone.width=0.125')
    assert f'{good}: ' in line and 'do not fit SingleStageDetector' in line
    assert 'stages.0.0.conv.weight (16, 3, 3, 3) instead of (8, 3, 3, 3)' in line
    line = fails('train', VOC_FORMAT, *flags, 'load_from=ssd_shapes', 'model.backbone.width=0.125')
    assert 'models/ssd_shapes.pth: ' in line and 'do not fit' in line  # a name of the zoo
    start = 'model.backbone.init_cfg'
    flags += [f'{start}.type=Pretrained', f'{start}.checkpoint={good}']
    line = fails('train', VOC_FORMAT, *flags, f'{start}.prefix=neck')
    assert f"{good}: has no weights under 'neck.' for HoyerVGG" in line
    prefix = f'{start}.prefix=backbone'
    line = fails('train', VOC_FORMAT, *flags, prefix, 'model.backbone.width=0.125')
    assert 'do not fit HoyerVGG (first: stages.0.0.conv.weight (16,' in line


def test_weights_and_extrema_that_are_not_finite(
    fails: Fails, voc_folder: Path, tmp_path: Path
) -> None:
    flags = options(voc_folder)
    good = save_checkpoint(tmp_path / 'good.pth', voc_folder)
    for name in ('backbone.stages.1.0.conv.weight', 'backbone.stages.1.0.act.running_extremum'):
        content = torch.load(good, weights_only=True)
        content['state_dict'][name].view(-1)[0] = float('nan')
        torch.save(content, tmp_path / 'bad.pth')
        expected = f'bad.pth: {name} holds NaN or inf'
        assert expected in fails('test', VOC_FORMAT, tmp_path / 'bad.pth', *flags)
        assert expected in fails('train', VOC_FORMAT, *flags, f'load_from={tmp_path / "bad.pth"}')


def test_neurons_that_fire_otherwise_are_another_network(
    fails: Fails, voc_folder: Path, tmp_path: Path
) -> None:
    path = save_checkpoint(tmp_path / 'fixed.pth', voc_folder)
    content = torch.load(path, weights_only=True)
    content['meta']['neurons'] = {'neck.extra_layers.0.0.act': dict(extremum='fixed')}
    torch.save(content, path)
    line = fails('test', VOC_FORMAT, path, *options(voc_folder))
    assert "extremum='fixed' there, 'channel' here" in line and 'extra_layers.0.0.act' in line


def test_checkpoint_of_other_classes(fails: Fails, voc_folder: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / 'other.pth', voc_folder, classes=('cat', 'dog', 'ring'))
    line = fails('test', VOC_FORMAT, other, *options(voc_folder))
    assert "('cat', 'dog', 'ring')" in line and "('cell', 'dot', 'ring')" in line


def test_faults_that_only_evaluation_meets(fails: Fails, voc_folder: Path, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / 'good.pth', voc_folder)
    line = fails('test', VOC_FORMAT, checkpoint, '--out', 'result.json', *options(voc_folder))
    assert 'result.json' in line and '.pkl' in line
    write_split(voc_folder, 'test', ['image0', 'lost'])
    assert 'JPEGImages/lost' in fails('test', VOC_FORMAT, checkpoint, *options(voc_folder))
