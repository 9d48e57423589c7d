"""The patches of mmdet and mmengine, and that they end."""

import logging
import os
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import mmdet
import mmengine
import numpy as np
import pytest
import torch
from hoyer_det.compat import patches
from mmdet.datasets.api_wrappers import COCO
from mmdet.models.dense_heads import SSDHead
from mmengine import ConfigDict
from mmengine.hooks import LoggerHook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn


def test_ssd_head_predicts():
    head = SSDHead(
        num_classes=2,
        in_channels=(4,),
        anchor_generator={
            'type': 'SSDAnchorGenerator',
            'scale_major': False,
            'input_size': 32,
            'strides': [8],
            'ratios': [[2]],
            'min_sizes': [8],
            'max_sizes': [16],
        },
        test_cfg=ConfigDict(
            nms_pre=100, nms={'type': 'nms', 'iou_threshold': 0.45}, score_thr=0.02, max_per_img=5
        ),
    )
    outputs = head((torch.rand(1, 4, 4, 4),))
    meta = {'img_shape': (32, 32), 'scale_factor': (1.0, 1.0), 'pad_shape': (32, 32)}
    (result,) = head.predict_by_feat(*outputs, batch_img_metas=[meta])
    assert result.bboxes.shape == (5, 4)
    assert set(result.labels.tolist()) <= {0, 1}


def test_patches_end_with_the_next_releases(monkeypatch):
    monkeypatch.delattr(SSDHead, 'loss_cls')
    monkeypatch.setattr(mmdet, '__version__', '3.3.1')
    patches.give_ssd_head_a_loss_cls()
    assert not hasattr(SSDHead, 'loss_cls')
    monkeypatch.delattr(COCO, 'createIndex')
    patches.take_missing_iscrowd_and_area()
    assert 'createIndex' not in vars(COCO)

    monkeypatch.setattr(mmengine, '__version__', '0.10.8')
    with warnings.catch_warnings():
        warnings.resetwarnings()
        patches.silence_pkg_resources()
        assert warnings.filters == []


def test_checkpoint_patch_steps_aside_for_an_mmengine_that_brings_its_own():
    before = torch.serialization.get_safe_globals()
    try:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([HistoryBuffer])
        patches.trust_mmengine_checkpoints()
        assert torch.serialization.get_safe_globals() == [HistoryBuffer]
    finally:
        torch.serialization.add_safe_globals(before)
    patches.trust_mmengine_checkpoints()
    assert set(torch.serialization.get_safe_globals()) == set(before)


class ToyModel(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))

    def forward(self, inputs: list[Tensor], mode: str = 'tensor', **kwargs) -> dict[str, Tensor]:
        return {'loss': self.layers(torch.stack(inputs)).square().mean()}


def toy_runner(work_dir: Path, optimizer: str, **kwargs) -> Runner:
    torch.manual_seed(0)
    samples = [{'inputs': x} for x in torch.randn(8, 2, generator=torch.Generator().manual_seed(1))]
    return Runner(
        ToyModel(),
        str(work_dir),
        train_dataloader={
            'dataset': samples,
            'batch_size': 2,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        },
        train_cfg={'type': 'IterBasedTrainLoop', 'max_iters': 4},
        optim_wrapper={
            'type': 'OptimWrapper',
            'optimizer': {'type': optimizer, 'lr': 0.1, 'weight_decay': 0.01},
            'clip_grad': {'max_norm': 1.0},
        },
        param_scheduler=[
            {'type': 'LinearLR', 'start_factor': 0.1, 'end': 3, 'by_epoch': False},
            {'type': 'MultiStepLR', 'milestones': [3], 'by_epoch': False},
        ],
        default_hooks={
            'checkpoint': {'type': 'CheckpointHook', 'interval': 2, 'by_epoch': False},
            'logger': {'type': 'LoggerHook', 'interval': 1},
        },
        custom_hooks=[{'type': 'EMAHook'}],
        default_scope='mmengine',
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
        log_level='ERROR',
        **kwargs,
    )


@pytest.mark.parametrize('optimizer', ['SGD', 'AdamW'])
def test_training_resumes_from_its_own_checkpoint(tmp_path, monkeypatch, optimizer):
    toy_runner(tmp_path / 'whole', optimizer).train()
    # As in a process that loads before it has logged anything.
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', {})
    resumed = toy_runner(
        tmp_path / 'resumed', optimizer, load_from=str(tmp_path / 'whole/iter_2.pth'), resume=True
    )
    resumed.train()
    assert not (tmp_path / 'resumed/iter_2.pth').exists()

    whole, again = (
        torch.load(tmp_path / name / 'iter_4.pth', weights_only=True)
        for name in ('whole', 'resumed')
    )
    assert again['param_schedulers'] == whole['param_schedulers']
    for key in ('state_dict', 'ema_state_dict', 'optimizer'):
        torch.testing.assert_close(again[key], whole[key], rtol=0, atol=0)
    histories = [x['message_hub']['log_scalars']['train/loss'] for x in (whole, again)]
    np.testing.assert_array_equal(histories[0].data[0], histories[1].data[0])
    assert histories[1].mean() == pytest.approx(histories[0].data[0].mean())


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_numpy_values_load_under_both_names(tmp_path, core):
    values = {
        'best_score': np.float64(0.5),
        'float32': np.float32(0.25),
        'int64': np.int64(3),
        'bool': np.bool_(True),
        'array': np.arange(6, dtype=np.float32).reshape(2, 3),
        'labels': np.array([1, 2]),
    }
    torch.save(values, tmp_path / 'now.pth')
    # Rewrite the module's name as the other NumPy generation would have written it.
    with (
        zipfile.ZipFile(tmp_path / 'now.pth') as source,
        zipfile.ZipFile(tmp_path / 'renamed.pth', 'w') as target,
    ):
        for name in source.namelist():
            data = source.read(name)
            if name.endswith('data.pkl'):
                for written in (b'numpy._core.multiarray', b'numpy.core.multiarray'):
                    data = data.replace(written, f'{core}.multiarray'.encode())
                assert f'{core}.multiarray'.encode() in data
            target.writestr(name, data)
    loaded = torch.load(tmp_path / 'renamed.pth', weights_only=True)
    for key, value in values.items():
        np.testing.assert_array_equal(loaded[key], value)
        assert loaded[key].dtype == value.dtype


class Attack:
    """Pickles as ``function(*args)``."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'attack',
    [Attack(os.getenv, 'HOME'), Attack(getattr, np.ndarray, 'tofile'), Attack(eval, '1')],
    ids=['os', 'getattr', 'eval'],
)
def test_protection_stays_on(tmp_path, attack):
    torch.save({'meta': attack}, tmp_path / 'bad.pth')
    with pytest.raises(Exception, match='(?i)unsupported|refused|blocklisted|not allowed'):
        torch.load(tmp_path / 'bad.pth')


@pytest.mark.parametrize('rank', [0, 1])
def test_metrics_of_a_test_are_written_by_the_first_process_alone(tmp_path, monkeypatch, rank):
    monkeypatch.setattr('mmengine.dist.utils.get_rank', lambda group=None: rank)
    log = SimpleNamespace(get_log_after_epoch=lambda *args, **kwargs: ({'mAP': 0.5}, ''))
    runner = SimpleNamespace(
        log_processor=log, logger=logging.getLogger(), log_dir=str(tmp_path), test_dataloader=[0]
    )
    hook = LoggerHook()
    hook.json_log_path = 'metrics.json'
    hook.after_test_epoch(runner)
    assert [path.name for path in tmp_path.iterdir()] == ['metrics.json'] * (rank == 0)
