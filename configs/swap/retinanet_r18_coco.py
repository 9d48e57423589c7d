# RetinaNet on HoyerResNet-18; neck and head are MMDetection's.
_base_ = ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', './_spiking.py']
custom_hooks = _base_.spiking_hooks
optim_wrapper = _base_.spiking_optim_wrapper
model = dict(
    backbone=dict(
        _delete_=True, type='HoyerResNet', depth=18, out_indices=(1, 2, 3), bias_spread=1.0
    ),
    neck=dict(in_channels=[128, 256, 512], start_level=0),
)
