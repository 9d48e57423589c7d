"""A spiking part with random weights at a lower learning rate is named, once, at the start."""

from types import SimpleNamespace

import pytest
import torch
from hoyer_det.engine import HoyerRegularizerHook
from hoyer_det.engine.learning_rates import warn_of_slow_parts
from mmengine.logging import MMLogger
from mmengine.model import PretrainedInit
from mmengine.optim import OptimWrapper
from tiny_ssd import build_ssd, train

SLOW = dict(custom_keys=dict(backbone=dict(lr_mult=0.1)))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []

    def warning(logger: MMLogger, message: object, *args: object, **kwargs: object) -> None:
        if 'random weights' in str(message):
            lines.append(str(message))

    monkeypatch.setattr(MMLogger, 'warning', warning, raising=False)
    return lines


def test_slow_backbone(said, tmp_path):
    model = build_ssd()
    train(model, [HoyerRegularizerHook(1e-8)], tmp_path, paramwise_cfg=SLOW)
    (line,) = said
    assert line.startswith('backbone: has random weights and learns at 0.1 of the learning rate')
    assert 'custom_keys.backbone.lr_mult=1.0' in line


def test_frozen_convolutions(said, tmp_path):
    model = build_ssd()
    first, *_ = [m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    first.weight.requires_grad = False
    train(model, [HoyerRegularizerHook(1e-8)], tmp_path)
    (line,) = said
    assert (
        line.startswith('backbone: has random weights, and 1 of its ') and 'frozen_stages' in line
    )
    said.clear()
    model.requires_grad_(False).bbox_head.requires_grad_(
        True
    )  # all of it: a part that is kept as it is
    train(model, [HoyerRegularizerHook(1e-8)], tmp_path)
    assert not said


def test_equal_rates(said, tmp_path):
    train(build_ssd(), [HoyerRegularizerHook(1e-8)], tmp_path)
    assert not said


def test_a_higher_rate_of_biases_is_no_lower_one_of_the_backbone(said, tmp_path):
    # As in FCOS, whose biases learn at twice the rate.
    train(build_ssd(), [HoyerRegularizerHook(1e-8)], tmp_path, paramwise_cfg=dict(bias_lr_mult=2.0))
    assert not said


def test_scaled_rates(said):
    model = build_ssd()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    optimizer.param_groups[0]['lr'] *= 0.25  # as --auto-scale-lr does
    runner = SimpleNamespace(optim_wrapper=OptimWrapper(optimizer), _load_from=None, _resume=False)
    runner.logger = MMLogger.get_instance('scaled')
    warn_of_slow_parts(runner, model)
    assert not said


@pytest.mark.parametrize('kind', ['Pretrained', PretrainedInit])
def test_loaded_backbone(said, tmp_path, kind):
    model = build_ssd()
    file = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=model.backbone.state_dict(), meta={}), file)
    model.backbone.init_cfg = dict(type=kind, checkpoint=str(file))
    train(model, [HoyerRegularizerHook(1e-8)], tmp_path, paramwise_cfg=SLOW)
    assert not said
