# SSDLite with its own MobileNetV2 made spiking; neck and head are MMDetection's.
_base_ = ['mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py', './_spiking.py']
custom_hooks = [*_base_.custom_hooks, *_base_.spiking_hooks]
optim_wrapper = _base_.spiking_optim_wrapper
model = dict(_delete_=True, type='SpikingDetector', detector=_base_.model, parts=['backbone'])
