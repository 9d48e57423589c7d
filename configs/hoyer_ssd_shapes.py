# One-time-step spiking SSD on the synthetic shapes: minutes on a CPU, no download.
_base_ = [
    '_base_/models/hoyer_ssd_small.py',
    '_base_/datasets/shapes.py',
    '_base_/schedules/small_cpu.py',
    '_base_/default_runtime.py',
]
model = dict(
    backbone=dict(depth=11),
    bbox_head=dict(
        num_classes=6,
        anchor_generator=dict(
            input_size=128, min_sizes=[24, 40, 64, 88], max_sizes=[40, 64, 88, 112]
        ),
    ),
)
max_epochs = 24
train_cfg = dict(max_epochs=max_epochs, val_interval=6)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs),
]
# The average of the last hundred or so steps: single steps of a one-step network swing.
custom_hooks = _base_.custom_hooks + [
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.01, update_buffers=True)
]
randomness = dict(seed=0)
