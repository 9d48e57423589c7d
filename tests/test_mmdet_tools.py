"""The configs for data of one's own under the tools that MMDetection itself ships."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mmdet
import pytest
from coco_folder import CLASSES, write_coco_folder
from conftest import CONFIGS, REPOSITORY
from mmengine.config import Config

TOOLS = Path(mmdet.__path__[0], '.mim', 'tools')
# train.py needs nothing of mmcv's operators before the config imports hoyer_det; the others do, unless
# a compiled mmcv is installed.
FIRST = 'import sys, runpy, hoyer_det; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], None, "__main__")'
FIVE_STEPS = """
_base_ = {base!r}
data_root = {root!r}
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=5, val_interval=5)
param_scheduler = []
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5))
log_processor = dict(by_epoch=False)
"""

pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason=f'{TOOLS} is not there')


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Run one of the tools in a folder of its own; return what it printed."""
    folder = tmp_path / 'elsewhere'
    folder.mkdir()
    paths = [str(REPOSITORY / 'projects'), os.environ.get('PYTHONPATH', '')]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(paths)}

    def run(tool: str, *arguments: object, first: bool = False) -> str:
        start = ['-c', FIRST] if first else []
        result = subprocess.run(
            [sys.executable, *start, str(TOOLS / tool), *map(str, arguments)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout + result.stderr

    return run


@pytest.mark.parametrize(
    'kind, all_tools',
    [
        ('vocformat', True),
        ('cocoformat', False),
        pytest.param('cocoformat', True, marks=pytest.mark.slow),
    ],
)
def test_train_test_and_browse(
    kind: str, all_tools: bool, tmp_path: Path, voc_folder: Path, run: Callable
) -> None:
    root = voc_folder if kind == 'vocformat' else write_coco_folder(tmp_path / 'coco')
    classes = ('cell', 'dot', 'ring') if kind == 'vocformat' else CLASSES
    own = tmp_path / 'own.py'
    own.write_text(FIVE_STEPS.format(base=str(CONFIGS / f'hoyer_ssd_{kind}.py'), root=str(root)))
    work = tmp_path / 'work'

    assert 'coco/bbox_mAP' in run('train.py', own, '--work-dir', work)
    dumped = Config.fromfile(work / 'own.py')
    assert dumped.model.bbox_head.num_classes == 3
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert tuple(dumped[key].dataset.metainfo.classes) == classes
        assert dumped[key].dataset.data_root == str(root) and dumped[key].dataset.ann_file

    if not all_tools:
        return
    arguments = (own, work / 'iter_5.pth', '--work-dir', tmp_path / 'tested')
    assert 'coco/bbox_mAP' in run('test.py', *arguments, first=True)

    pictures = tmp_path / 'pictures'
    option = f'train_dataloader.dataset.data_root={root}'
    arguments = (own, '--not-show', '--output-dir', pictures, '--cfg-options', option)
    run('analysis_tools/browse_dataset.py', *arguments, first=True)
    trained = ['image0', 'image1', 'image2', 'image3'] if kind == 'vocformat' else ['a', 'b', 'c']
    assert sorted(path.stem for path in pictures.iterdir()) == trained
