# The ReLU twin of hoyer_ssd_shapes.py: the same network, data and schedule; norm biases start at 0.
_base_ = '../hoyer_ssd_shapes.py'
act_cfg = dict(_delete_=True, type='ReLU')
model = dict(backbone=dict(act_cfg=act_cfg), neck=dict(act_cfg=act_cfg))
custom_hooks = [
    hook
    for hook in _base_.custom_hooks
    if hook['type'] not in ('HoyerRegularizerHook', 'SpikeRateHook', 'SpikeStatisticsHook')
]
