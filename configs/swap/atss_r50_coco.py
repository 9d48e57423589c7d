# ATSS on HoyerResNet-50; neck and head are MMDetection's.
_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py', './_spiking.py']
custom_hooks = _base_.spiking_hooks
optim_wrapper = _base_.spiking_optim_wrapper
model = dict(
    backbone=dict(
        _delete_=True, type='HoyerResNet', depth=50, out_indices=(1, 2, 3), bias_spread=1.0
    ),
    neck=dict(in_channels=[512, 1024, 2048], start_level=0),
)
