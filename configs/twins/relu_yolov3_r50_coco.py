# The ReLU twin of hoyer_yolov3_r50_coco.py: the same network, data and schedule; norm biases start at 0.
_base_ = '../hoyer_yolov3_r50_coco.py'
act_cfg = dict(_delete_=True, type='ReLU')
model = dict(
    backbone=dict(act_cfg=act_cfg), neck=dict(act_cfg=act_cfg), bbox_head=dict(act_cfg=act_cfg)
)
custom_hooks = [
    hook
    for hook in _base_.custom_hooks
    if hook['type'] not in ('HoyerRegularizerHook', 'SpikeRateHook', 'SpikeStatisticsHook')
]
