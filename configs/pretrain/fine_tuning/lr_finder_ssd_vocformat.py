# Learning-rate finder: the rate rises from 1e-5 to 1 in 150 steps. Take the steepest part of the loss in
# vis_data/scalars.json, well before it turns up; docs/pretrained_weights.md reads it out.
_base_ = './from_shapes_ssd_vocformat.py'
steps = 150
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=steps, val_interval=steps + 1)
optim_wrapper = dict(optimizer=dict(lr=1e-5), clip_grad=None)
param_scheduler = [dict(type='ExponentialLR', gamma=10 ** (5 / steps), by_epoch=False)]
log_processor = dict(by_epoch=False, window_size=10)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=-1))
custom_hooks = [hook for hook in _base_.custom_hooks if hook['type'] != 'EMAHook']
