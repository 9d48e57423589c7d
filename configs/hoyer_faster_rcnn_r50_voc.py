# One-time-step spiking Faster R-CNN, ResNet-50, Pascal VOC 07+12.
_base_ = [
    '_base_/models/hoyer_faster_rcnn_r50.py',
    '_base_/datasets/voc0712_multiscale.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/default_runtime.py',
]
# From ResNet-50 trained on ImageNet with ReLU; from random weights: model.backbone.init_cfg=None
model = dict(
    backbone=dict(init_cfg=dict(type='FromANN', checkpoint='torchvision://resnet50')),
    roi_head=dict(bbox_head=dict(num_classes=20)),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
# The weight of the authors' detector.
custom_hooks = [
    dict(hook, weight=1e-9) if hook['type'] == 'HoyerRegularizerHook' else hook
    for hook in _base_.custom_hooks
] + [dict(type='CalibrateFromANNHook', only_from_ann=True)]
