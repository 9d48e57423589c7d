# One-time-step spiking RetinaNet, ResNet-18, Pascal VOC 07+12.
_base_ = [
    '_base_/models/hoyer_retinanet_r18.py',
    '_base_/datasets/voc0712_multiscale.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/default_runtime.py',
]
# From ResNet-18 trained on ImageNet with ReLU; from random weights: model.detector.backbone.init_cfg=None
model = dict(
    detector=dict(
        backbone=dict(init_cfg=dict(type='FromANN', checkpoint='torchvision://resnet18')),
        bbox_head=dict(num_classes=20),
    )
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
custom_hooks = _base_.custom_hooks + [dict(type='CalibrateFromANNHook', only_from_ann=True)]
