# RetinaNet on a spiking ResNet-50.
_base_ = './hoyer_retinanet_r18.py'
model = dict(detector=dict(backbone=dict(depth=50), neck=dict(in_channels=[512, 1024, 2048])))
