# Faster R-CNN on HoyerResNet-50; neck and heads are MMDetection's, short side 640 to 800 px, 1x.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50-caffe_fpn_ms-1x_coco.py', './_spiking.py']
custom_hooks = _base_.spiking_hooks
optim_wrapper = _base_.spiking_optim_wrapper
model = dict(
    backbone=dict(_delete_=True, type='HoyerResNet', depth=50, bias_spread=1.0),
)
