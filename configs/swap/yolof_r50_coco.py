# YOLOF on HoyerResNet-50; neck and head are MMDetection's.
_base_ = ['mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py', './_spiking.py']
custom_hooks = _base_.spiking_hooks
optim_wrapper = _base_.spiking_optim_wrapper
model = dict(
    backbone=dict(_delete_=True, type='HoyerResNet', depth=50, out_indices=(3,), bias_spread=1.0),
)
