"""The configs for data of one's own under the tools that MMDetection itself ships."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hoyer_det_cli
import mmdet
import pytest
from coco_folder import CLASSES, write_coco_folder
from conftest import CONFIGS, REPOSITORY
from mmengine.config import Config
from warm import Warm

TOOLS = Path(mmdet.__path__[0], '.mim', 'tools')
FIVE_STEPS = """
_base_ = {base!r}
data_root = {root!r}
model = dict(test_cfg=dict(max_per_img=5))  # of the boxes of an untrained network, which are drawn
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=5, val_interval=5)
param_scheduler = []
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=5), visualization=dict(num_images=1)
)
log_processor = dict(by_epoch=False)
"""

pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason=f'{TOOLS} is not there')


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Run a Python command line in a folder of its own; return what it printed."""
    folder = tmp_path / 'elsewhere'
    folder.mkdir()
    paths = [str(REPOSITORY / 'projects'), os.environ.get('PYTHONPATH', '')]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(paths)}

    def run(*arguments: object) -> str:
        result = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout + result.stderr

    return run


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run ``hoyer-det run`` in this process, which spares the imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['hoyer-det', 'run', *map(str, arguments)])
        hoyer_det_cli.main()

    return run


@pytest.mark.parametrize(
    'kind, all_tools',
    [
        ('vocformat', True),
        ('cocoformat', False),
        pytest.param('cocoformat', True, marks=pytest.mark.slow),
    ],
)
def test_tools(
    kind: str,
    all_tools: bool,
    tmp_path: Path,
    voc_folder: Path,
    run: Callable[..., str],
    run_here: Callable[..., None],
    warm: Warm,
) -> None:
    root = voc_folder if kind == 'vocformat' else write_coco_folder(tmp_path / 'coco')
    classes = ('cell', 'dot', 'ring') if kind == 'vocformat' else CLASSES
    own = tmp_path / 'own.py'
    own.write_text(FIVE_STEPS.format(base=str(CONFIGS / f'hoyer_ssd_{kind}.py'), root=str(root)))
    work = tmp_path / 'work'

    # In a fresh process, where nothing but `custom_imports` of the config imports hoyer_det. train.py
    # needs nothing of mmcv's operators before; the others do, unless a compiled mmcv is installed.
    if not all_tools:
        (trained,) = warm.run(['run', 'train', own, '--work-dir', work], tmp_path)
        assert trained.code == 0, trained.err
        assert 'coco/bbox_mAP' in trained.out
    else:
        assert 'coco/bbox_mAP' in run(TOOLS / 'train.py', own, '--work-dir', work)
    trained = work / 'own.py'
    dumped = Config.fromfile(trained)
    assert dumped.model.bbox_head.num_classes == 3
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert tuple(dumped[key].dataset.metainfo.classes) == classes
        assert dumped[key].dataset.data_root == str(root) and dumped[key].dataset.ann_file

    if not all_tools:
        return
    found = tmp_path / 'found.pkl'
    arguments = (own, work / 'iter_5.pth', '--work-dir', tmp_path / 'tested', '--out', found)
    (tested,) = warm.run(['run', 'test', *arguments], tmp_path)
    assert tested.code == 0 and 'coco/bbox_mAP' in tested.out, tested.err

    pictures = tmp_path / 'pictures'
    run_here('browse_dataset', trained, '--not-show', '--output-dir', pictures)
    images = ['image0', 'image1', 'image2', 'image3'] if kind == 'vocformat' else ['a', 'b', 'c']
    assert sorted(path.stem for path in pictures.iterdir()) == images
    run_here('analysis_tools/confusion_matrix.py', trained, found, tmp_path / 'matrix')
    assert (tmp_path / 'matrix' / 'confusion_matrix.png').is_file()
    run_here('analyze_results', trained, found, tmp_path / 'results', '--topk', '1')
    assert list((tmp_path / 'results').rglob('*.jpg'))
