# hoyer_ssd_voc.py with the average of the weights, which the small configs have by default.
_base_ = '../../hoyer_ssd_voc.py'
custom_hooks = _base_.custom_hooks + [
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.001, update_buffers=True)
]
