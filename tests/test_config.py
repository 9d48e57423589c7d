"""Configs load, build the models they describe, and fit themselves to a data set."""

import copy
from pathlib import Path

import pytest
import torch
from coco_folder import write_coco_folder
from conftest import CONFIGS, voc_object, write_split, write_voc_image
from hoyer_det.config import check_data, dataset_classes, load_config
from hoyer_det.spiking import HoyerSpike
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.config import config as config_module
from mmengine.registry import init_default_scope
from torch import nn

MAIN = sorted(path.name for path in CONFIGS.glob('*.py'))
VOC_FORMAT = CONFIGS / 'hoyer_ssd_vocformat.py'
NUM_CLASSES = {'coco': 80, 'voc': 20, 'shapes': 6, 'vocformat': 3, 'cocoformat': 3}


def load(path: Path, folder: Path, twin: str | None = None) -> Config:
    """Load a config; one for data of one's own gets a folder of such data."""
    if 'cocoformat' in path.name:
        write_coco_folder(folder)
    own = path.stem.endswith(('vocformat', 'cocoformat'))
    return load_config(path, {'data_root': str(folder)} if own else None, twin)


def build(cfg: Config) -> nn.Module:
    """Build the model without memory for its weights."""
    init_default_scope('mmdet')
    with torch.device('meta'):
        return MODELS.build(copy.deepcopy(cfg.model))  # detectors write into their config


def conv_shapes(model: nn.Module) -> dict[str, tuple]:
    """Return everything that decides what a convolution does, by name."""
    return {
        name: (tuple(conv.weight.shape), conv.stride, conv.padding, conv.dilation)
        for name, conv in model.named_modules()
        if isinstance(conv, nn.Conv2d)
    }


def without_activations(node: object) -> object:
    """Return a config without its act_cfg, on every level."""
    if isinstance(node, dict):
        return {k: without_activations(v) for k, v in node.items() if k != 'act_cfg'}
    if isinstance(node, list | tuple):
        return [without_activations(item) for item in node]
    return node


def regularizer_weight(cfg: Config) -> float | None:
    """Return the weight of the Hoyer regularizer, None where there is none."""
    hooks = {hook['type']: hook for hook in cfg.custom_hooks}
    return hooks.get('HoyerRegularizerHook', {}).get('weight')


@pytest.mark.parametrize('name', MAIN)
def test_config_is_spiking_and_its_twins_differ_in_their_activations_only(
    name: str, voc_folder: Path
) -> None:
    original = load(CONFIGS / name, voc_folder)
    model = build(original)
    head = model.roi_head.bbox_head if hasattr(model, 'roi_head') else model.bbox_head
    assert head.num_classes == NUM_CLASSES[Path(name).stem.split('_')[-1]]
    # Of the two-stage detector the heads stay as they are; what RetinaNet's head never calls is left.
    parts = [model.backbone, model.neck]
    if not hasattr(model, 'roi_head'):
        parts += [layer for name, layer in head.named_children() if name != 'relu']
    assert all(any(isinstance(m, HoyerSpike) for m in part.modules()) for part in parts[:2])
    for part in parts:
        assert not any(isinstance(m, nn.ReLU | nn.LeakyReLU) for m in part.modules())

    shapes = conv_shapes(model)
    assert regularizer_weight(original) == (1e-9 if 'faster_rcnn' in name else 1e-8)
    same = ('train_dataloader', 'test_dataloader', 'test_evaluator', 'optim_wrapper')
    for kind in ('relu', 'onebit'):
        twin = load(CONFIGS / name, voc_folder, kind)
        model = build(twin)
        assert conv_shapes(model) == shapes
        spikes = [module for module in model.modules() if isinstance(module, HoyerSpike)]
        if kind == 'relu':
            assert not spikes
        else:
            assert spikes and {spike.extremum for spike in spikes} == {'fixed'}
        assert regularizer_weight(twin) == {'relu': None, 'onebit': 0}[kind]
        models = [
            without_activations(cfg.model.get('detector', cfg.model)) for cfg in (twin, original)
        ]
        assert models[0] == models[1]
        for key in (*same, 'param_scheduler', 'train_cfg', 'default_hooks'):
            assert twin[key] == original[key], key


@pytest.mark.parametrize(
    'name, data_root',
    [
        ('hoyer_ssd_voc.py', 'data/VOCdevkit/'),
        ('hoyer_ssd512_coco.py', 'data/coco/'),
        ('hoyer_ssd_shapes.py', 'data/shapes/'),
    ],
)
@pytest.mark.parametrize('new', ['/elsewhere/my data', 'data/', '{old}inner'])
def test_data_root_moves_every_path(name: str, data_root: str, new: str) -> None:
    new = new.format(old=data_root)
    before = load_config(CONFIGS / name).to_dict()
    after = load_config(CONFIGS / name, {'data_root': new}).to_dict()
    moved = []

    def compare(old_value: object, new_value: object, key: str) -> None:
        if isinstance(old_value, dict):
            assert old_value.keys() == new_value.keys()
            for inner in old_value:
                compare(old_value[inner], new_value[inner], f'{key}.{inner}')
        elif isinstance(old_value, list | tuple):
            for index, pair in enumerate(zip(old_value, new_value, strict=True)):
                compare(*pair, f'{key}.{index}')
        elif isinstance(old_value, str) and data_root in old_value:
            assert new_value == old_value.replace(data_root, new.rstrip('/') + '/')
            moved.append(key)
        else:
            assert new_value == old_value

    compare(before, after, '')
    assert '.data_root' in moved
    assert len([key for key in moved if key.endswith('dataset.data_root')]) >= 2
    if 'coco' in name:
        assert {'.val_evaluator.ann_file', '.test_evaluator.ann_file'} <= set(moved)


def test_data_root_moves_a_root_without_final_slash_but_not_its_neighbours(tmp_path: Path) -> None:
    file = tmp_path / 'config.py'
    file.write_text("data_root = 'data/a'\ninside = 'data/a/x.json'\nbeside = 'data/ab/x.json'\n")
    cfg = load_config(file, {'data_root': 'new'})
    assert (cfg.data_root, cfg.inside, cfg.beside) == ('new/', 'new/x.json', 'data/ab/x.json')


def test_options_are_merged_after_the_move() -> None:
    options = {'data_root': 'new', 'test_dataloader.dataset.data_root': 'other/'}
    cfg = load_config(CONFIGS / 'hoyer_ssd_voc.py', options)
    assert cfg.test_dataloader.dataset.data_root == 'other/'
    assert cfg.val_dataloader.dataset.data_root == 'new/'


def test_config_is_not_formatted_by_yapf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_module, 'FormatCode', None)
    text = load_config(CONFIGS / 'hoyer_ssd_voc.py').pretty_text
    assert Config.fromstring(text, '.py').model.type == 'SingleStageDetector'


def test_misspelt_first_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r'train_cgf\.max_epochs: nothing .* is train_cfg meant'):
        load_config(CONFIGS / 'hoyer_ssd_voc.py', {'train_cgf.max_epochs': 3})
    options = {'randomness.seed': 3, 'work_dir': 'here', 'find_unused_parameters': True}
    assert load_config(CONFIGS / 'hoyer_ssd_voc.py', options).randomness.seed == 3


@pytest.mark.parametrize(
    'option, message',
    [
        (
            'max_epochs',
            r'has no effect .*: train_cfg\.max_epochs; other keys of the same value: .*T_max$',
        ),
        ('input_size', r'has no effect .*: model\.bbox_head\.anchor_generator\.input_size; other'),
        ('train_pipeline', r'has no effect .*instead: train_dataloader\.dataset\.pipeline$'),
        ('modle.backbone', 'is model meant'),
        ('train_cfg.max_epoch', "there is no 'max_epoch'; is max_epochs meant"),
        ('model.bakbone.depth', "there is no 'bakbone'; is backbone meant"),
        ('param_scheduler.1.T_maxx', 'is T_max meant'),
        ('xyzzy', 'check the spelling'),
    ],
)
def test_option_that_would_change_nothing_is_refused(option: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf'option {option}: .*{message}') as error:
        load_config(CONFIGS / 'hoyer_ssd_shapes.py', {option: 1})
    assert '\n' not in str(error.value)


def test_misspelt_key_of_a_config_is_refused(tmp_path: Path) -> None:
    file = tmp_path / 'config.py'
    file.write_text('modle = dict()\nmodel_name = "mine"\nmodel2 = 1\n')
    with pytest.raises(ValueError, match=r'config\.py: nothing reads modle; is model meant'):
        load_config(file)
    file.write_text('model_name = "mine"\nmodel2 = 1\n')
    assert load_config(file).model2 == 1


def test_new_keys_below_known_ones_are_taken() -> None:
    options = {'model.test_cfg.max_per_img': 7, 'train_dataloader.dataset.metainfo.note': 'x'}
    cfg = load_config(CONFIGS / 'hoyer_ssd_shapes.py', options)
    assert cfg.model.test_cfg.max_per_img == 7


@pytest.mark.parametrize(
    'lists, train, test',
    [
        (('trainval', 'test'), 'trainval', 'test'),
        (('train', 'val', 'trainval', 'test'), 'trainval', 'test'),
        (('train', 'test'), 'train', 'test'),
        (('train', 'val', 'test'), 'train', 'test'),
        (('train', 'val'), 'train', 'val'),
        (('train', 'val', 'trainval'), 'train', 'val'),
    ],
)
def test_voc_format_is_completed(
    tmp_path: Path, lists: tuple[str, ...], train: str, test: str
) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut'), voc_object('bolt')])
    for name in lists:
        write_split(tmp_path, name, ['a'])
    cfg = load_config(VOC_FORMAT, {'data_root': str(tmp_path)})
    assert cfg.model.bbox_head.num_classes == 2
    for loader, split in (('train', train), ('val', test), ('test', test)):
        dataset = cfg[f'{loader}_dataloader'].dataset
        assert dataset.ann_file == f'ImageSets/Main/{split}.txt'
        assert dataset.metainfo.classes == ('bolt', 'nut')
    assert dataset_classes(cfg) == ('bolt', 'nut')
    # What is written into a work folder needs no completion and changes nothing when it is loaded.
    dumped = tmp_path / 'dumped.py'
    cfg.dump(dumped)
    assert load_config(dumped).to_dict() == cfg.to_dict()


def test_explicit_list_and_classes_stay(voc_folder: Path) -> None:
    write_split(voc_folder, 'mine', ['image0'])
    options = {
        'data_root': str(voc_folder),
        'train_dataloader.dataset.ann_file': 'ImageSets/Main/mine.txt',
        'train_dataloader.dataset.metainfo.classes': ['ring', 'dot', 'cell'],
    }
    cfg = load_config(VOC_FORMAT, options)
    assert cfg.train_dataloader.dataset.ann_file == 'ImageSets/Main/mine.txt'
    assert cfg.test_dataloader.dataset.ann_file == 'ImageSets/Main/test.txt'
    assert cfg.test_dataloader.dataset.metainfo.classes == ('ring', 'dot', 'cell')


def test_one_class_given_as_a_word_is_one_class(voc_folder: Path) -> None:
    options = {
        'data_root': str(voc_folder),
        'train_dataloader.dataset.metainfo.classes': 'cell',
    }
    cfg = load_config(VOC_FORMAT, options)
    assert cfg.model.bbox_head.num_classes == 1
    assert dataset_classes(cfg) == ('cell',)


def test_a_file_of_classes_is_not_taken_for_their_names() -> None:
    """MMEngine's data sets read it themselves."""
    dataset = dict(type='VOCDataset', metainfo=dict(classes='names.txt'))
    assert dataset_classes(Config(dict(test_dataloader=dict(dataset=dataset)))) is None


def test_data_set_without_lists_is_refused(tmp_path: Path) -> None:
    write_voc_image(tmp_path, 'a', [voc_object('nut')])
    write_split(tmp_path, 'trainval', ['a'])
    with pytest.raises(FileNotFoundError, match='test.txt'):
        load_config(VOC_FORMAT, {'data_root': str(tmp_path)})


def test_check_data_looks_at_the_loaders_named(tmp_path: Path) -> None:
    cfg = load_config(CONFIGS / 'hoyer_ssd_voc.py', {'data_root': str(tmp_path)})
    for year, split in (('VOC2007', 'trainval'), ('VOC2012', 'trainval')):
        write_split(tmp_path / year, split, [])
    check_data(cfg, ('train_dataloader',))
    with pytest.raises(FileNotFoundError, match=r'VOC2007/ImageSets/Main/test\.txt'):
        check_data(cfg)
