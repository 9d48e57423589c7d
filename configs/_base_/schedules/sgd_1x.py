# MMDetection's 1x schedule (12 epochs, SGD, 16 images a step) without decay of the thresholds.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(threshold=dict(decay_mult=0.0)),
        bypass_duplicate=True,  # convolutions that the levels of a head share
    )
)
