"""The wheel: what is in it, and that it trains from another folder, on a config of one's own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import hoyer_det
import pytest
import yaml
from conftest import CONFIGS, REPOSITORY
from hoyer_det.config import load_config
from hoyer_det.shipped import config_names, config_path

PACKAGE = REPOSITORY / 'projects' / 'hoyer_det'
SOURCES = ('configs', 'projects', 'tools', 'setup.py', 'setup.cfg', 'pyproject.toml')
MORE = ('README.md', 'LICENSE', 'MANIFEST.in', 'model-index.yml')
# A user's own config, in a folder of their own: a narrow network, five steps.
OWN = """
_base_ = __import__('hoyer_det').config_path('hoyer_ssd_vocformat')
data_root = {data!r}
channels = (32, 64, 32, 16)
model = dict(
    backbone=dict(width=1 / 16),
    neck=dict(in_channels=channels[:2], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root)
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=5, val_interval=10)
log_processor = dict(by_epoch=False)
param_scheduler = []
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=5, by_epoch=False),
    visualization=dict(num_images=0),
)
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
custom_hooks = [hook for hook in _base_.custom_hooks if hook['type'] != 'SpikeStatisticsHook']
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the sources, so that nothing is written among them."""
    folder = tmp_path_factory.mktemp('wheel')
    junk = shutil.ignore_patterns('__pycache__', '*.egg-info', 'work_dirs', 'data')
    for name in (*SOURCES, *MORE):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=junk)
        else:
            shutil.copy(source, folder)
    build = 'from setuptools import build_meta; print(build_meta.build_wheel("."))'
    done = subprocess.run([sys.executable, '-c', build], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


def write_own_config(folder: Path, data: Path) -> Path:
    folder.mkdir()
    file = folder / 'mine.py'
    file.write_text(OWN.format(data=str(data)))
    return file


def run(*command: object, cwd: Path, environment: Mapping[str, str]) -> str:
    variables = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**variables, 'OMP_NUM_THREADS': '1', **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_carries_all_files_of_the_package_and_the_configs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        text = archive.read(next(n for n in names if n.endswith('entry_points.txt'))).decode()
    assert 'hoyer-det = hoyer_det_cli:main' in text
    carried = {name.removeprefix('hoyer_det/') for name in names if name.startswith('hoyer_det/')}
    assert {name for name in carried if not name.startswith('.mim/')} == files(PACKAGE)
    assert {'py.typed', 'kernels/cpu.c'} <= carried
    mim = {name.removeprefix('.mim/') for name in carried if name.startswith('.mim/')}
    shipped = {f'configs/{name}' for name in files(CONFIGS)}
    # demo.py and set_up.py belong to a checkout; the others have a command of the console script.
    tools = {f'tools/{name}' for name in files(REPOSITORY / 'tools')}
    assert mim == shipped | {'model-index.yml'} | tools - {'tools/demo.py', 'tools/set_up.py'}
    assert {'tools/train.py', 'tools/detect.py', 'tools/convert_labels.py'} <= mim


def test_unpacked_wheel_trains_a_config_of_ones_own(wheel, tmp_path, voc_folder):
    site, own = tmp_path / 'site', write_own_config(tmp_path / 'own', voc_folder)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    here = dict(cwd=own.parent, environment={'PYTHONPATH': str(site)})
    both = """
import hoyer_det_cli
from hoyer_det import config_path
print(config_path('hoyer_ssd_voc'))
hoyer_det_cli.main()
"""
    printed = run(sys.executable, '-c', both, 'train', own.name, '--work-dir', 'work', **here)
    assert printed.splitlines()[0] == str(
        site / 'hoyer_det' / '.mim' / 'configs' / 'hoyer_ssd_voc.py'
    )
    assert (own.parent / 'work' / 'iter_5.pth').is_file()
    # The config in the work folder is complete: it needs the shipped one no more.
    dumped = load_config(own.parent / 'work' / 'mine.py')
    assert dumped.model.bbox_head.num_classes == 3
    assert str(site) not in (own.parent / 'work' / 'mine.py').read_text()


@pytest.mark.slow
def test_installed_wheel_trains_by_the_console_script(wheel, tmp_path, voc_folder):
    environment = tmp_path / 'env'
    venv.EnvBuilder(with_pip=True).create(environment)
    (packages,) = environment.glob('lib/python*/site-packages')
    # PyTorch and the rest are those of the environment that runs this test.
    (packages / 'outer.pth').write_text(sysconfig.get_path('purelib'))
    own = write_own_config(tmp_path / 'own', voc_folder)
    here = dict(cwd=own.parent, environment={})
    pip = [environment / 'bin' / 'python', '-m', 'pip', '--disable-pip-version-check']
    run(*pip, 'install', '--no-deps', '--no-index', wheel, **here)
    script = environment / 'bin' / 'hoyer-det'
    place = run(script, 'configs', 'hoyer_ssd_voc', **here).strip()
    assert Path(place).is_relative_to(packages)
    run(script, 'train', 'mine.py', **here)
    assert (own.parent / 'work_dirs' / 'mine' / 'iter_5.pth').is_file()
    run(script, 'train', 'mine.py', '--twin', 'relu', **here)
    assert (own.parent / 'work_dirs' / 'mine_relu' / 'mine_relu.py').is_file()


# ------------------------------------------------------------------------------------------------
# Names of configs
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'name', ['hoyer_ssd_voc', 'hoyer_ssd_voc.py', 'configs/hoyer_ssd_voc.py', 'swap/yolox_s_coco']
)
def test_config_path(name):
    path = hoyer_det.config_path(name)
    assert Path(path).is_file() and Path(path).stem == name.split('/')[-1].removesuffix('.py')


def test_names_are_those_of_all_experiments():
    names = config_names()
    assert {path.stem for path in CONFIGS.glob('*.py')} <= set(names)
    assert 'swap/fcos_r50_coco' in names and 'pretrain/fine_tuning/ema_ssd_voc' in names
    assert not [name for name in names if '/_' in f'/{name}']
    assert all(config_path(name) for name in names)


@pytest.mark.parametrize(
    'name, near',
    [
        ('hoyer_sdd_voc', 'hoyer_ssd_voc'),
        ('fcos_r50_coco', 'swap/fcos_r50_coco'),
        ('configs/hoyer_yolov3_cocco.py', 'hoyer_yolov3_coco'),
        ('', 'see the folder'),
        ('../setup', 'see the folder'),
    ],
)
def test_unknown_name_brings_the_nearest(name, near):
    with pytest.raises(FileNotFoundError, match='no such config file') as error:
        config_path(name)
    assert near in str(error.value) and '\n' not in str(error.value)


def test_a_command_takes_the_name_and_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config('hoyer_ssd_voc').model.bbox_head.num_classes == 20
    Path('hoyer_ssd_voc.py').write_text('model = dict(a=1)\n')
    assert load_config('hoyer_ssd_voc.py').model == dict(a=1)


# ------------------------------------------------------------------------------------------------
# What MIM reads
# ------------------------------------------------------------------------------------------------


def test_model_index_has_every_experiment_once():
    index = yaml.safe_load((REPOSITORY / 'model-index.yml').read_text())
    models = []
    for name in index['Import']:
        content = yaml.safe_load((REPOSITORY / name).read_text())
        (collection,) = content['Collections']
        assert (REPOSITORY / collection['README']).is_file()
        for model in content['Models']:
            assert model['In Collection'] == collection['Name']
            assert Path(model['Config']).stem == model['Name']
            assert 'Results' in model or 'Weights' not in model
            # Neither was trained to the end here.
            assert not {'VOC', 'COCO'} & {result['Dataset'] for result in model.get('Results', [])}
        models += content['Models']
    expected = sorted(f'configs/{path.name}' for path in CONFIGS.glob('hoyer_*.py'))
    assert sorted(model['Config'] for model in models) == expected
