# One-time-step spiking SSD on your own data in COCO format, small enough for a CPU:
#   python tools/train.py configs/hoyer_ssd_cocoformat.py --cfg-options data_root=FOLDER
_base_ = [
    '_base_/models/hoyer_ssd_small.py',
    '_base_/datasets/coco_format.py',
    '_base_/schedules/small_cpu.py',
    '_base_/default_runtime.py',
]
model = dict(backbone=dict(depth=11))
# The average of the last hundred or so steps: single steps of a one-step network swing.
custom_hooks = _base_.custom_hooks + [
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.01, update_buffers=True)
]
randomness = dict(seed=0)
