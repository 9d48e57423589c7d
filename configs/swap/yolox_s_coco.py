# YOLOX-s with its own CSPDarknet made spiking; neck and head are MMDetection's. A ResNet in its place
# would leave little of YOLOX.
_base_ = ['mmdet::yolox/yolox_s_8xb8-300e_coco.py', './_spiking.py']
custom_hooks = [*_base_.custom_hooks, *_base_.spiking_hooks]
optim_wrapper = _base_.spiking_optim_wrapper
model = dict(_delete_=True, type='SpikingDetector', detector=_base_.model, parts=['backbone'])
