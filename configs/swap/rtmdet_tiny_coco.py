# RTMDet-tiny with its own CSPNeXt made spiking, from random weights; neck and head are MMDetection's.
_base_ = ['mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', './_spiking.py']
custom_hooks = [*_base_.custom_hooks, *_base_.spiking_hooks]
optim_wrapper = _base_.spiking_optim_wrapper
backbone = dict(_base_.model.backbone, init_cfg=None)
model = dict(
    _delete_=True,
    type='SpikingDetector',
    detector=dict(_base_.model, backbone=backbone),
    parts=['backbone'],
)
