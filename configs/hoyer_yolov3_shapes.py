# One-time-step spiking YOLOv3 on the synthetic shapes: minutes on a CPU, no download.
_base_ = [
    '_base_/models/hoyer_yolov3_small.py',
    '_base_/datasets/shapes.py',
    '_base_/schedules/small_cpu.py',
    '_base_/default_runtime.py',
]
model = dict(
    bbox_head=dict(
        num_classes=6,
        anchor_generator=dict(
            base_sizes=[
                [(60, 60), (76, 76), (100, 100)],
                [(26, 26), (34, 34), (46, 46)],
            ]
        ),
    ),
)
max_epochs = 48
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
