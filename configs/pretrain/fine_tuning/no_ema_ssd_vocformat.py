# Fine-tuning without the average of the weights, for comparison: the small configs have it, see EMAHook.
_base_ = './from_shapes_ssd_vocformat.py'
custom_hooks = [hook for hook in _base_.custom_hooks if hook['type'] != 'EMAHook']
