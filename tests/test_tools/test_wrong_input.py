"""Wrong input to ``tools/``: what the many cases of ``tests/test_reliability`` do not have."""

import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, load_script
from hoyer_det.commands.errors import one_line_errors
from hoyer_det.config import load_config
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader, Dataset

VOC_FORMAT = CONFIGS / 'hoyer_ssd_vocformat.py'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
Fails = Callable[..., str]


@pytest.fixture
def fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Fails:
    """Run a tool in an otherwise empty folder; return its one line of error. Nothing may be left."""
    monkeypatch.chdir(tmp_path)
    for variable in ('LOCAL_RANK', 'HOYER_DET_TRACEBACK', 'RANK'):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv('LOCAL_RANK', '0')  # so that what the tools set is taken back

    def run(tool: str, *arguments: object) -> str:
        module = load_script(f'tools/{tool}.py')
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
        assert sorted(tmp_path.rglob('*')) == before
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


def save_checkpoint(path: Path, root: Path, twin: str | None = None) -> Path:
    """Save an untrained model, as the suite would have saved it after training."""
    cfg = load_config(VOC_FORMAT, {'data_root': str(root)}, twin)
    init_default_scope('mmdet')
    meta = dict(dataset_meta=dict(classes=cfg.test_dataloader.dataset.metainfo.classes))
    content = dict(state_dict=MODELS.build(cfg.model).state_dict(), optimizer=dict(), meta=meta)
    torch.save(content, path)
    return path


# ------------------------------------------------------------------------------------------------
# Config, options and data
# ------------------------------------------------------------------------------------------------


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


def test_folder_that_is_not_in_voc_layout(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / 'my, data').mkdir()  # comma and space would make a list of it
    line = fails('train', VOC_FORMAT, '--cfg-options', 'data_root=my, data')
    assert 'my, data/Annotations: no *.xml files' in line


def test_data_root_for_a_config_without(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / 'plain.py').write_text('model = dict()\n')
    line = fails('train', 'plain.py', '--cfg-options', 'data_root=data')
    assert 'plain.py: has no data_root' in line


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


def test_auto_scale_lr_without_base(fails: Fails, voc_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / 'no_base.py'
    file.write_text(f'_base_ = {str(VOC_FORMAT)!r}\nauto_scale_lr = dict(_delete_=True)\n')
    line = fails('train', file, '--auto-scale-lr', *options(voc_folder))
    assert 'auto_scale_lr.base_batch_size' in line


# ------------------------------------------------------------------------------------------------
# Checkpoints
# ------------------------------------------------------------------------------------------------


def test_checkpoint_of_another_network(fails: Fails, voc_folder: Path, tmp_path: Path) -> None:
    flags = options(voc_folder)
    spiking = save_checkpoint(tmp_path / 'spiking.pth', voc_folder)
    relu = save_checkpoint(tmp_path / 'relu.pth', voc_folder, twin='relu')
    line = fails('test', VOC_FORMAT, relu, *flags)
    assert 'weights missing' in line and 'threshold' in line
    line = fails('test', VOC_FORMAT, spiking, '--twin', 'relu', *flags)
    assert 'unexpected' in line and 'threshold' in line
    assert 'threshold' in fails('train', VOC_FORMAT, '--resume', relu, *flags)


def test_training_starts_from_weights_that_fit(
    fails: Fails, voc_folder: Path, tmp_path: Path
) -> None:
    good = save_checkpoint(tmp_path / 'good.pth', voc_folder)
    flags = options(voc_folder)
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
        line = fails('train', VOC_FORMAT, *flags, 'load_from=bad.pth')
        assert f'bad.pth: {name} holds NaN or inf' in line


def test_neurons_that_fire_otherwise_are_another_network(
    fails: Fails, voc_folder: Path, tmp_path: Path
) -> None:
    path = save_checkpoint(tmp_path / 'fixed.pth', voc_folder)
    content = torch.load(path, weights_only=True)
    content['meta']['neurons'] = {'neck.extra_layers.0.0.act': dict(extremum='fixed')}
    torch.save(content, path)
    line = fails('test', VOC_FORMAT, path, *options(voc_folder))
    assert "extremum='fixed' there, 'channel' here" in line and 'extra_layers.0.0.act' in line
