# One-time-step spiking Faster R-CNN, ResNet-50, COCO 2017: 1x schedule, several scales, trained norms.
_base_ = [
    '_base_/models/hoyer_faster_rcnn_r50.py',
    '_base_/datasets/coco_multiscale.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/default_runtime.py',
]
# The weight of the authors' detector.
custom_hooks = [
    dict(hook, weight=1e-9) if hook['type'] == 'HoyerRegularizerHook' else hook
    for hook in _base_.custom_hooks
]
