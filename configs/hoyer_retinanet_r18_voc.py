# One-time-step spiking RetinaNet, ResNet-18, Pascal VOC 07+12.
_base_ = [
    '_base_/models/hoyer_retinanet_r18.py',
    '_base_/datasets/voc0712_multiscale.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/default_runtime.py',
]
model = dict(detector=dict(bbox_head=dict(num_classes=20)))
optim_wrapper = dict(optimizer=dict(lr=0.01))
