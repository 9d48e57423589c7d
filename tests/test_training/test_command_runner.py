"""A set-up that fails takes back what it wrote, and nothing that another process wrote meanwhile."""

import time
from pathlib import Path

import pytest
import torch
from hoyer_det.training.runner import CommandRunner
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS

ERRORS = dict(ValueError=ValueError, KeyboardInterrupt=KeyboardInterrupt)


@MODELS.register_module()
class FailingNet(BaseModel):
    """A model whose construction may fail, after another process has used the folder."""

    def __init__(self, fail: str | None = None, other: str | None = None) -> None:
        super().__init__()
        if other is not None:
            other_training(Path(other))
        if fail is not None:
            raise ERRORS[fail]('in the model')

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


def other_training(folder: Path) -> None:
    """What a training that shares the work folder writes: a log, a checkpoint, its config."""
    (folder / '20200101_000000' / 'vis_data').mkdir(parents=True)
    (folder / '20200101_000000' / '20200101_000000.log').write_text('log')
    (folder / 'epoch_3.pth').write_text('weights')
    (folder / 'last_checkpoint').write_text('epoch_3.pth')
    (folder / 'net.py').write_text('config of the training')


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob('*')
        if path.is_file()
    }


def config(work_dir: Path, **model: object) -> Config:
    cfg = dict(
        model=dict(type='FailingNet', **model),
        work_dir=str(work_dir),
        experiment_name=str(work_dir),
    )
    return Config(cfg, cfg_text='net', filename='net.py')


@pytest.mark.parametrize('error', ERRORS)
@pytest.mark.parametrize('place', ['model', 'later'])
@pytest.mark.parametrize('new', [True, False], ids=['new folder', 'folder of a training'])
def test_what_another_run_wrote_meanwhile_stays(error, place, new, tmp_path):
    work_dir = tmp_path / 'runs' / 'first'
    if not new:
        work_dir.mkdir(parents=True)
        (work_dir / 'epoch_2.pth').write_text('weights')
    failing = dict(fail=error) if place == 'model' else {}
    with pytest.raises(ERRORS[error]):
        runner = CommandRunner.from_cfg(config(work_dir, other=str(work_dir), **failing))
        with runner.set_up():
            raise ERRORS[error]('later')
    other_training(tmp_path / 'other')
    expected = files(tmp_path / 'other')
    if not new:
        expected['epoch_2.pth'] = 'weights'
    assert files(work_dir) == expected
    assert [path.name for path in work_dir.iterdir() if path.is_dir()] == ['20200101_000000']


def test_alone_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match='in the model'):
        CommandRunner.from_cfg(config(tmp_path / 'runs' / 'first', fail='ValueError'))
    assert not list(tmp_path.iterdir())


def test_complete_set_up_leaves_the_config(tmp_path):
    runner = CommandRunner.from_cfg(config(tmp_path))
    assert not (tmp_path / 'net.py').exists()
    with runner.set_up():
        pass
    assert Config.fromfile(tmp_path / 'net.py').work_dir == str(tmp_path)
    assert list(Path(runner.log_dir).glob('*.log'))


def test_runs_of_the_same_second_have_log_folders_of_their_own(tmp_path):
    before = time.time()
    runners = [CommandRunner.from_cfg(config(tmp_path)) for _ in range(2)]
    assert len({runner.log_dir for runner in runners}) == 2
    assert time.time() - before < 60


def test_default_hooks_may_be_switched_off(tmp_path):
    cfg = config(tmp_path)
    cfg.default_hooks = dict(visualization=None, timer=None)
    names = {type(hook).__name__ for hook in CommandRunner.from_cfg(cfg).hooks}
    assert 'LoggerHook' in names and 'IterTimerHook' not in names
