# YOLOF on HoyerResNet-50; neck and head are MMDetection's.
_base_ = ['mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py', './_spiking.py']
custom_hooks = _base_.spiking_hooks
# The base trains a pre-trained backbone at a third of the rate; this one has random weights.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            _base_.spiking_optim_wrapper.paramwise_cfg.custom_keys, backbone=dict(lr_mult=1.0)
        )
    )
)
model = dict(
    backbone=dict(_delete_=True, type='HoyerResNet', depth=50, out_indices=(3,), bias_spread=1.0),
)
