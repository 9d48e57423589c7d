"""SpikingDetector in MMEngine's training loop and in MMDetection's inference calls."""

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hoyer_det.spiking import spiking_layers
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from narrow import random_items
from small_detectors import CONFIGS, SIDE, SMALL, small_config
from torch import nn
from torch.utils.data import DataLoader

IMAGE = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
_names = itertools.count()


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Config:
    """A narrow spiking RetinaNet."""
    cfg = Config.fromfile(CONFIGS / SMALL['retinanet'][0])
    detector = small_config('retinanet')
    detector.backbone.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    detector.test_cfg.score_thr = 0.0
    cfg.model = dict(type='SpikingDetector', detector=detector, parts=['backbone', 'bbox_head'])
    return cfg


def runner(config: Config, folder: Path, iters: int, **options) -> Runner:
    model = config.model.copy()
    model.detector = model.detector.copy()
    model.detector.backbone = {**model.detector.backbone, 'init_cfg': None}
    preprocessor = model.detector.pop('data_preprocessor')
    return Runner(
        model=model,
        data_preprocessor=preprocessor,  # at the top of a config, for the Runner to hand down
        work_dir=str(folder),
        train_dataloader=DataLoader(random_items(2, SIDE), batch_size=2, collate_fn=pseudo_collate),
        train_cfg=dict(by_epoch=False, max_iters=iters),
        # Thresholds start at 1, where a float32 moves by 1.2e-7 or not at all.
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=iters), logger=None
        ),
        custom_hooks=[
            dict(type='EMAHook', momentum=0.5, update_buffers=True),
            dict(type='HoyerRegularizerHook', weight=1e-6),
        ],
        default_scope='mmdet',
        log_level='ERROR',
        experiment_name=f'spiking_detector_{next(_names)}',
        randomness=dict(seed=0),
        **options,
    )


@pytest.fixture(scope='module')
def trained(config, tmp_path_factory) -> tuple[Path, nn.Module, nn.Module]:
    """Checkpoint, model and average of two training steps."""
    folder = tmp_path_factory.mktemp('runner')
    run = runner(config, folder, 2)
    run.train()
    (ema,) = [hook for hook in run.hooks if isinstance(hook, EMAHook)]
    optimized = {id(p) for group in run.optim_wrapper.param_groups for p in group['params']}
    assert all(id(layer.threshold) in optimized for layer in spiking_layers(run.model).values())
    return folder / 'iter_2.pth', run.model, ema.ema_model.module


def test_training_moves_thresholds_and_the_average_follows(trained):
    _, model, average = trained
    layers, averaged = spiking_layers(model), spiking_layers(average)
    assert set(layers) == set(averaged) and len(layers) == 1 + 8 * 2 + 8 * 5
    for name, layer in layers.items():
        assert layer is not averaged[name]
        assert layer.running_weight.item() > averaged[name].running_weight.item() > 0, name
    moved = {name for name, layer in layers.items() if layer.threshold.item() != 1}
    # In the head, whose weights start small, potentials are far from some of the thresholds.
    assert {name for name in layers if name.startswith('backbone')} < moved
    assert len([name for name in moved if name.startswith('bbox_head')]) > 20


class Start(Hook):
    """Keeps the state with which training begins."""

    def before_train(self, runner: Runner) -> None:
        self.iter, self.state = runner.iter, copy.deepcopy(runner.model.state_dict())


def test_checkpoint_goes_on_training_where_it_stopped(trained, config, tmp_path):
    file, model, _ = trained
    run, start = runner(config, tmp_path, 3, load_from=str(file), resume=True), Start()
    run.register_hook(start)
    run.train()
    assert start.iter == 2 and run.iter == 3
    expected = model.state_dict()
    assert set(start.state) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in start.state.items())


def test_inferencer_takes_the_config_as_it_is(trained, config, tmp_path):
    file, _, average = trained
    path = tmp_path / 'spiking.py'
    config.dump(path)
    inferencer = DetInferencer(str(path), str(file), device='cpu', show_progress=False)
    layers = spiking_layers(inferencer.model)
    for name, layer in spiking_layers(average).items():
        assert torch.equal(layer.running_extremum, layers[name].running_extremum)
    (prediction,) = inferencer(IMAGE, no_save_vis=True)['predictions']
    assert len(prediction['scores']) > 0


def test_init_detector_takes_the_config_with_empty_options(trained, config, tmp_path):
    file, _, average = trained
    path = tmp_path / 'spiking.py'
    config.dump(path)
    with pytest.raises(AttributeError, match='backbone'):  # why the options are needed
        init_detector(str(path), str(file), device='cpu')
    model = init_detector(str(path), str(file), device='cpu', cfg_options={})
    layers = spiking_layers(model)
    for name, layer in spiking_layers(average).items():
        assert torch.equal(layer.threshold, layers[name].threshold)
    assert len(inference_detector(model, IMAGE).pred_instances) > 0
