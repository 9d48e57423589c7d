# One-time-step spiking SSD300, VGG16, Pascal VOC 07+12.
_base_ = [
    '_base_/models/hoyer_ssd300.py',
    '_base_/datasets/voc0712_ssd300.py',
    '_base_/schedules/adamw_24e.py',
    '_base_/default_runtime.py',
]
# From VGG16 trained on ImageNet with ReLU; from random weights: model.backbone.init_cfg=None
model = dict(
    backbone=dict(init_cfg=dict(type='FromANN', checkpoint='torchvision://vgg16_bn')),
    bbox_head=dict(num_classes=20, anchor_generator=dict(basesize_ratio_range=(0.2, 0.9))),
)
custom_hooks = _base_.custom_hooks + [dict(type='CalibrateFromANNHook', only_from_ann=True)]
