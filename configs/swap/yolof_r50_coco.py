# YOLOF on HoyerResNet-50; neck and head are MMDetection's.
_base_ = ['mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py', './_spiking.py']
custom_hooks = _base_.spiking_hooks
# The base trains a pre-trained backbone at a third of the rate; this one has random weights. Without its
# key the backbone's norms do not decay, as those of neck and head.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(_delete_=True, **_base_.spiking_optim_wrapper.paramwise_cfg.custom_keys)
    )
)
model = dict(
    backbone=dict(_delete_=True, type='HoyerResNet', depth=50, out_indices=(3,), bias_spread=1.0),
)
