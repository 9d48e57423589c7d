# One-time-step spiking Faster R-CNN, ResNet-50, COCO 2017: 1x schedule, several scales, trained norms.
_base_ = [
    '_base_/models/hoyer_faster_rcnn_r50.py',
    '_base_/datasets/coco_multiscale.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/default_runtime.py',
]
# From ResNet-50 trained on ImageNet with ReLU; from random weights: model.backbone.init_cfg=None
model = dict(backbone=dict(init_cfg=dict(type='FromANN', checkpoint='torchvision://resnet50')))
# The weight of the authors' detector.
custom_hooks = [
    dict(hook, weight=1e-9) if hook['type'] == 'HoyerRegularizerHook' else hook
    for hook in _base_.custom_hooks
] + [dict(type='CalibrateFromANNHook', only_from_ann=True)]
