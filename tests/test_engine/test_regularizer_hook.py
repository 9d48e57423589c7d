"""HoyerRegularizerHook: the term, its gradient, and that it leaves nothing behind."""

import os
import time
import weakref
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import mmdet
import pytest
import torch
from hoyer_det.backbones import blocks
from hoyer_det.engine import HoyerRegularizerHook
from hoyer_det.spiking import check_potentials, record_spikes, spiking_layers
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hooks import Hook, LoggerHook, SyncBuffersHook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from processes import run_processes
from tiny_ssd import Watch, batch, build_ssd, images, train
from torch import nn
from torch.nn.functional import batch_norm
from torch.utils.checkpoint import checkpoint

WEIGHT = 1e-3


@contextmanager
def listening(model: nn.Module, weight: float = WEIGHT):
    """The hook at work on a model, without a training loop."""
    runner = SimpleNamespace(model=model, hooks=[], optim_wrapper=None)
    hook = HoyerRegularizerHook(weight)
    hook.before_train(runner)
    yield hook
    hook.after_train(runner)


@contextmanager
def independent_squares(model: nn.Module):
    """The Hoyer squares by their definition, from what each neuron reads."""
    squares: list[torch.Tensor] = []

    def add(layer, inputs):
        potential, *norm = inputs
        potential = potential.double()
        if norm:
            weight, bias = norm[0].weight.double(), norm[0].bias.double()
            potential = batch_norm(potential, None, None, weight, bias, True, eps=norm[0].eps)
        if layer.training and layer.tracking:
            clipped = (potential / layer.threshold.abs().double()).clamp(0, 1)
            squares.append(clipped.sum() ** 2 / clipped.square().sum())

    handles = [m.register_forward_pre_hook(add) for m in spiking_layers(model).values()]
    yield squares
    for handle in handles:
        handle.remove()


def total(losses: dict) -> torch.Tensor:
    return sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if 'loss' in k)


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if grad is None else grad
        for (name, p), grad in zip(model.named_parameters(), grads, strict=True)
    }


def loss_gradients(model: nn.Module, weight: float, seed: int = 0) -> dict[str, torch.Tensor]:
    if not weight:
        return gradients(model, total(model(**batch(model, seed=seed), mode='loss')))
    with listening(model, weight):
        return gradients(model, total(model(**batch(model, seed=seed), mode='loss')))


def recording_is_off(model: nn.Module) -> bool:
    return all(not layer._observers for layer in spiking_layers(model).values())


def test_runner_adds_the_weighted_sum_of_all_layers(tmp_path):
    model, watch = build_ssd(), Watch()
    with independent_squares(model) as squares:
        train(model, [watch, dict(type='HoyerRegularizerHook', weight=WEIGHT)], tmp_path, iters=2)
    layers = len(spiking_layers(model))
    assert layers == 12 and len(squares) == 2 * layers
    for step, logs in enumerate(watch.logs):
        expected = WEIGHT * sum(squares[step * layers : (step + 1) * layers])
        assert logs['loss_hoyer'].item() == pytest.approx(expected.item(), rel=1e-5)
        parts = logs['loss_cls'] + logs['loss_bbox'] + logs['loss_hoyer']
        assert logs['loss'].item() == pytest.approx(parts.item(), rel=1e-6)


def test_gradient_grows_by_that_of_the_term_in_float64():
    model = build_ssd().double()
    data = batch(model)
    data['inputs'] = data['inputs'].double()
    without = gradients(model, total(model(**data, mode='loss')))
    with listening(model):
        grown = gradients(model, total(model(**data, mode='loss')))
    with independent_squares(model) as squares:
        model(**data, mode='loss')
    term = gradients(model, WEIGHT * sum(squares))
    for name, value in term.items():
        torch.testing.assert_close(grown[name] - without[name], value, rtol=1e-6, atol=1e-9)
        if name.startswith(('backbone', 'neck')) and name.endswith(('conv.weight', 'threshold')):
            assert value.abs().sum() > 0, name
    assert not any(value.any() for name, value in term.items() if name.startswith('bbox_head'))


def test_per_image_divides_by_the_batch():
    model = build_ssd()
    terms = []
    for per_image in (False, True):
        runner = SimpleNamespace(model=model, hooks=[], optim_wrapper=None)
        hook = HoyerRegularizerHook(WEIGHT, per_image=per_image)
        hook.before_train(runner)
        terms.append(model(**batch(model), mode='loss')['loss_hoyer'].item())
        hook.after_train(runner)
    assert terms[0] == pytest.approx(len(batch(model)['inputs']) * terms[1], rel=1e-6)


def test_images_of_a_semi_supervised_detector_are_those_of_the_student():
    branches = dict(sup=4, unsup_teacher=8, unsup_student=8)
    inputs = {name: torch.zeros(count, 3, 8, 8) for name, count in branches.items()}
    assert HoyerRegularizerHook._images(build_ssd(), (), dict(inputs=inputs)) == 4 + 8


def test_gradient_accumulation_takes_the_mean(tmp_path):
    start = build_ssd()
    grads = [loss_gradients(start, WEIGHT, seed) for seed in (0, 1)]
    model = build_ssd()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, [HoyerRegularizerHook(WEIGHT)], tmp_path, iters=2, accumulative_counts=2)
    for name, p in model.named_parameters():
        mean = (grads[0][name] + grads[1][name]) / 2
        torch.testing.assert_close(before[name] - p.cpu(), mean, rtol=1e-3, atol=1e-5, msg=name)


def test_bfloat16_keeps_the_term_in_float32(tmp_path, monkeypatch):
    if not torch.cuda.is_available():  # MMEngine would refuse, although its autocast knows the CPU
        module = 'mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available'
        monkeypatch.setattr(module, lambda: True)
    model, watch, seen = build_ssd(), Watch(), set()
    layer = model.neck.extra_layers[0][0].act
    layer.register_forward_hook(lambda m, i, o: seen.add((i[0].dtype, o.dtype)))
    conv = model.neck.extra_layers[0][1].conv
    conv.register_forward_hook(lambda m, i, o: seen.add(o.dtype))
    hooks = [watch, HoyerRegularizerHook(WEIGHT)]
    train(model, hooks, tmp_path, 2, type='AmpOptimWrapper', dtype='bfloat16')
    assert torch.bfloat16 in seen
    for logs in watch.logs:
        assert logs['loss_hoyer'].dtype == torch.float32
        assert logs['loss_hoyer'] > 0 and torch.isfinite(logs['loss_hoyer'])
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_gradient_checkpointing_changes_nothing():
    plain, checkpointed = build_ssd(), build_ssd(with_cp=True)
    for model in (plain, checkpointed):
        with listening(model):
            losses = model(**batch(model), mode='loss')
            model.term = losses['loss_hoyer'].item()
            total(losses).backward()
    assert checkpointed.term == plain.term
    for (name, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    for (name, a), b in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_reentrant_checkpointing_is_refused(monkeypatch):
    def reentrant(stage, x, **options):
        return checkpoint(stage, x, use_reentrant=True)

    monkeypatch.setattr(blocks, 'checkpoint', reentrant)
    model = build_ssd(with_cp=True)
    with listening(model), pytest.raises(RuntimeError, match='reentrant gradient checkpointing'):
        model(**batch(model), mode='loss')
    assert recording_is_off(model)


def _process(rank: int, folder: str) -> None:
    """One of two processes: a training step on its own batch, then MMEngine's buffer hook."""
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2
    )
    model = MMDistributedDataParallel(build_ssd())
    before = {name: p.detach().clone() for name, p in model.module.named_parameters()}
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0))
    with listening(model):
        data = dict(zip(('inputs', 'data_samples'), _columns(rank), strict=True))
        logs = model.train_step(data, optimizer)
    steps = {name: before[name] - p.detach() for name, p in model.module.named_parameters()}
    SyncBuffersHook().after_train_epoch(SimpleNamespace(model=model))
    buffers = dict(model.module.named_buffers())
    torch.save((logs['loss_hoyer'].item(), steps, buffers), f'{folder}/{rank}.pt')
    while not Path(folder, f'{1 - rank}.pt').exists():
        time.sleep(0.01)  # the other may still be listening
    # Without clearing up: the model's destructor waits, holding the lock of Python, for a thread of Gloo
    # that may want that lock for the last tensor it lets go (PyTorch 2.11), and then both wait for ever.
    os._exit(0)


def _columns(seed: int) -> tuple[list, list]:
    items = images(2, seed)
    return [i['inputs'] for i in items], [i['data_samples'] for i in items]


def test_two_processes_step_along_the_mean_gradient(tmp_path):
    run_processes(_process, (str(tmp_path),), 2)
    (term0, steps0, buffers0), (term1, steps1, buffers1) = (
        torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)
    )
    singles = [build_ssd(), build_ssd()]
    grads = [loss_gradients(model, WEIGHT, seed) for seed, model in enumerate(singles)]
    assert 0 < term0 != term1 > 0
    for name in grads[0]:
        assert torch.equal(steps0[name], steps1[name]), name
        mean = (grads[0][name] + grads[1][name]) / 2
        torch.testing.assert_close(steps0[name], mean, rtol=1e-3, atol=1e-5, msg=name)
    alone = [dict(model.named_buffers()) for model in singles]
    for name in alone[0]:
        assert torch.equal(buffers0[name], buffers1[name]), name
        if name.endswith(('running_extremum', 'running_weight')):
            mean = (alone[0][name] + alone[1][name]) / 2
            torch.testing.assert_close(buffers0[name], mean, msg=name)


def test_two_stage_detector_gets_the_term_too(tmp_path):
    init_default_scope('mmdet')
    folder = Path(mmdet.__file__).parent / '.mim' / 'configs' / '_base_' / 'models'
    cfg = Config.fromfile(folder / 'faster-rcnn_r50_fpn.py').model
    cfg.backbone = dict(type='HoyerVGG', depth=11, width=0.0625)
    cfg.neck.update(in_channels=[8, 16, 32, 32], out_channels=8)
    cfg.rpn_head.update(in_channels=8, feat_channels=8)
    cfg.roi_head.bbox_roi_extractor.out_channels = 8
    cfg.roi_head.bbox_head.update(in_channels=8, fc_out_channels=8, num_classes=2)
    cfg.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=50)
    torch.manual_seed(0)
    model, watch = MODELS.build(cfg), Watch()
    model.init_weights()
    before = [layer.threshold.item() for layer in spiking_layers(model).values()]
    with independent_squares(model) as squares:
        optimizer = dict(type='SGD', lr=0.01)
        hooks = [watch, HoyerRegularizerHook(WEIGHT)]
        train(model, hooks, tmp_path, optimizer=optimizer)
    assert watch.logs[0]['loss_hoyer'].item() == pytest.approx(WEIGHT * sum(squares).item())
    assert {'loss_rpn_cls', 'loss_bbox'} < set(watch.logs[0])
    after = [layer.threshold.item() for layer in spiking_layers(model).values()]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_nothing_outlives_a_training_step():
    model = build_ssd()
    references = []

    def observe(name, layer, spikes, square):
        references.append(weakref.ref(square))

    with listening(model) as hook:
        with record_spikes(model, observe):
            losses = model(**batch(model), mode='loss')
        references.append(weakref.ref(losses['loss_hoyer']))
        assert recording_is_off(model)
        total(losses).backward()
        del losses
        assert len(references) == 13 and all(reference() is None for reference in references)
        held = [hook._squares] + [vars(layer) for layer in spiking_layers(model).values()]
        for attributes in held[1:]:
            for value in [*attributes.values(), *attributes['_buffers'].values()]:
                assert getattr(value, 'grad_fn', None) is None
        assert held[0] == []


def test_evaluation_is_left_alone():
    model = build_ssd()
    data = batch(model)
    model(**data, mode='loss')

    def outputs():
        predicted = model.eval()(**data, mode='predict')
        tensors = [t for levels in model(**data, mode='tensor') for t in levels]
        losses = model(**data, mode='loss')
        with torch.no_grad():
            frozen = model.train()(**data, mode='loss')
        return predicted[0].pred_instances.bboxes.clone(), tensors, set(losses), set(frozen)

    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    boxes, tensors, keys, frozen = outputs()
    model.load_state_dict(state)
    with listening(model):
        boxes2, tensors2, keys2, frozen2 = outputs()
    assert len(boxes) and torch.equal(boxes, boxes2)
    assert all(torch.equal(a, b) for a, b in zip(tensors, tensors2, strict=True))
    assert keys == keys2 == frozen == frozen2 == {'loss_cls', 'loss_bbox'}


def test_an_exception_leaves_no_recording_on():
    model = build_ssd()

    def interrupt(module, inputs):
        raise ZeroDivisionError

    with listening(model):
        handle = model.neck.register_forward_pre_hook(interrupt)
        with pytest.raises(ZeroDivisionError):
            model(**batch(model), mode='loss')
        handle.remove()
        assert recording_is_off(model)
        with independent_squares(model) as squares:
            losses = model(**batch(model), mode='loss')
        assert losses['loss_hoyer'].item() == pytest.approx(WEIGHT * sum(squares).item(), rel=1e-5)


def test_listening_ends_with_the_training(tmp_path):
    model = build_ssd()
    train(model, [HoyerRegularizerHook(WEIGHT)], tmp_path)
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert not model._forward_hooks_always_called
    assert 'loss_hoyer' not in model(**batch(model), mode='loss')


class Poison(Hook):
    """Puts a value into a parameter before the first iteration."""

    def __init__(self, name: str, value: float) -> None:
        self.name, self.value = name, value

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == 0:
            with torch.no_grad():
                runner.model.get_parameter(self.name).fill_(self.value)


@pytest.mark.parametrize(
    ('interval', 'iters', 'noticed'), [(3, 5, 3), (1, 5, 1), (50, 2, 2)], ids=['3rd', '1st', 'last']
)
def test_nan_is_named_at_the_next_check(tmp_path, interval, iters, noticed):
    model, watch = build_ssd(), Watch()
    hooks = [
        Poison('backbone.stages.2.0.conv.weight', float('nan')),
        watch,
        HoyerRegularizerHook(0.0, check_interval=interval),
    ]
    with pytest.raises(FloatingPointError, match=r'^backbone\.stages\.2\.0\.act .* NaN or inf'):
        # The first step carries the NaN into the stages before it; they are not where it began.
        train(model, hooks, tmp_path, iters)
    assert len(watch.logs) == noticed
    assert 'loss_hoyer' not in watch.logs[0]


def test_check_follows_the_log_interval_and_the_epochs():
    model = build_ssd()
    loggers = [LoggerHook(interval=7), LoggerHook(interval=5)]
    hook = HoyerRegularizerHook(WEIGHT)
    runner = SimpleNamespace(model=model, hooks=loggers, optim_wrapper=None)
    hook.before_train(runner)
    assert hook.check_interval == 5
    # Before a checkpoint is written, whatever the interval.
    spiking_layers(model)['backbone.stages.2.0.act'](torch.full((1, 32, 2, 2), float('nan')))
    with pytest.raises(FloatingPointError, match=r'^backbone\.stages\.2\.0\.act'):
        hook.after_train_epoch(runner)
    hook.after_train_epoch(runner)  # what was reported is forgotten
    hook.after_train(runner)


def test_nan_in_every_layer_points_to_loss_and_optimizer():
    model = build_ssd()
    for layer in spiking_layers(model).values():
        layer(torch.full((1, layer.num_features, 2, 2), float('nan')))
    with pytest.raises(FloatingPointError, match='12 of 12 layers did, equally often: .* the loss'):
        check_potentials(model)


def test_inf_is_named_although_the_loss_stays_finite(tmp_path):
    model, watch = build_ssd(norm=None), Watch()
    hooks = [
        Poison('backbone.stages.1.0.conv.bias', float('inf')),
        watch,
        HoyerRegularizerHook(WEIGHT, check_interval=1),
    ]
    with pytest.raises(
        FloatingPointError, match=r'^backbone\.stages\.1\.0\.act .*; 1 of 12 layers'
    ):
        train(model, hooks, tmp_path, optimizer=dict(type='SGD', lr=0.0))
    assert torch.isfinite(watch.logs[0]['loss'])


def test_healthy_training_passes_every_check(tmp_path):
    watch = Watch()
    optimizer = dict(type='SGD', lr=0.01)
    hooks = [watch, HoyerRegularizerHook(WEIGHT, check_interval=1)]
    train(build_ssd(), hooks, tmp_path, 3, optimizer=optimizer)
    assert len(watch.logs) == 3


def test_a_model_without_neurons_is_refused(tmp_path):
    with pytest.raises(ValueError, match='SingleStageDetector has no HoyerSpike layer'):
        train(build_ssd('ReLU'), [HoyerRegularizerHook()], tmp_path)


@pytest.mark.parametrize('weight', [-1e-8, float('nan')])
def test_weight_must_not_be_negative(weight):
    with pytest.raises(ValueError, match='HoyerRegularizerHook: weight must be a finite number'):
        HoyerRegularizerHook(weight)
