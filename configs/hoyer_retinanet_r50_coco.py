# One-time-step spiking RetinaNet, ResNet-50, COCO 2017.
_base_ = [
    '_base_/models/hoyer_retinanet_r50.py',
    '_base_/datasets/coco_multiscale.py',
    '_base_/schedules/sgd_1x.py',
    '_base_/default_runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=0.01))
