# The 1-bit twin of hoyer_yolov3_cocoformat.py: firing at the clip threshold itself, no Hoyer regularizer.
_base_ = '../hoyer_yolov3_cocoformat.py'
act_cfg = dict(extremum='fixed')
model = dict(
    backbone=dict(act_cfg=act_cfg), neck=dict(act_cfg=act_cfg), bbox_head=dict(act_cfg=act_cfg)
)
# Of the regularizer only its check for NaN and inf is left.
custom_hooks = [
    dict(hook, weight=0.0) if hook['type'] == 'HoyerRegularizerHook' else hook
    for hook in _base_.custom_hooks
]
