# Fine-tuning with thresholds kept away from zero.
_base_ = './from_shapes_ssd_vocformat.py'
custom_hooks = _base_.custom_hooks + [dict(type='ThresholdFloorHook', minimum=0.05)]
