# One-time-step spiking YOLOv3 on your own data in Pascal VOC layout, small enough for a CPU:
#   python tools/train.py configs/hoyer_yolov3_vocformat.py --cfg-options data_root=FOLDER
_base_ = [
    '_base_/models/hoyer_yolov3_small.py',
    '_base_/datasets/voc_format.py',
    '_base_/schedules/small_cpu.py',
    '_base_/default_runtime.py',
]
# With a real-valued stream past the convolutions the spikes learn from random weights: docs/learning.md.
model = dict(backbone=dict(shortcut=True, out_stream=True), neck=dict(shortcut=True))
custom_hooks = _base_.custom_hooks + [
    # The average of the last hundred or so steps: single steps of a one-step network swing.
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.01, update_buffers=True),
    # Else nearly all neurons deep in a random network with shortcuts fire.
    dict(type='CenterPotentialsHook'),
]
randomness = dict(seed=0)
