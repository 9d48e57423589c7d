# The 1-bit twin of hoyer_ssd_shapes.py: firing at the clip threshold itself, no Hoyer regularizer.
_base_ = '../hoyer_ssd_shapes.py'
act_cfg = dict(extremum='fixed')
model = dict(backbone=dict(act_cfg=act_cfg), neck=dict(act_cfg=act_cfg))
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='HoyerRegularizerHook', weight=0.0),  # only its check for NaN and inf
    dict(type='SpikeRateHook'),
    dict(type='SyncBuffersHook'),
]
