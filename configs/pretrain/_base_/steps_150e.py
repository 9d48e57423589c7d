# The authors' ImageNet schedule: Adam, 150 epochs, a fifth of the rate at 60, 80 and 90 % of them.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=150, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=1e-4, weight_decay=5e-4),
    # The scale of a threshold or of a norm is what the layer learns; decay would only fight it.
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(threshold=dict(decay_mult=0.0))),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', milestones=[90, 120, 135], gamma=0.2),
]
auto_scale_lr = dict(enable=False, base_batch_size=512)
