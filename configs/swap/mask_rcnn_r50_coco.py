# Mask R-CNN on HoyerResNet-50; neck and heads are MMDetection's.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', './_spiking.py']
custom_hooks = _base_.spiking_hooks
optim_wrapper = _base_.spiking_optim_wrapper
model = dict(
    backbone=dict(_delete_=True, type='HoyerResNet', depth=50, bias_spread=1.0),
)
