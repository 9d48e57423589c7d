# One-time-step spiking SSD512, VGG16, COCO 2017.
_base_ = [
    '_base_/models/hoyer_ssd512.py',
    '_base_/datasets/coco_ssd512.py',
    '_base_/schedules/adamw_24e.py',
    '_base_/default_runtime.py',
]
# From VGG16 trained on ImageNet with ReLU; from random weights: model.backbone.init_cfg=None
model = dict(backbone=dict(init_cfg=dict(type='FromANN', checkpoint='torchvision://vgg16_bn')))
custom_hooks = _base_.custom_hooks + [dict(type='CalibrateFromANNHook', only_from_ann=True)]
