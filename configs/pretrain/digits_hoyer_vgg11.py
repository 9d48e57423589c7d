# The backbone of hoyer_ssd_shapes.py on scikit-learn's digits: minutes on a CPU, no download.
_base_ = ['_base_/preprocessor.py', '../_base_/schedules/small_cpu.py', '_base_/runtime.py']
model = dict(
    backbone=dict(
        type='HoyerVGG',
        depth=11,
        width=0.25,
        out_indices=(4,),
        act_cfg=dict(type='HoyerSpike', extremum='channel'),
        bias_spread=1.0,
    ),
    head=dict(type='SpikingReadout', num_classes=10, dropout=0.1),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='DigitsDataset',
        transforms=[
            dict(type='Resize', size=32),
            dict(type='RandomCrop', size=32, padding=4),  # no flip: a digit has a direction
        ],
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='DigitsDataset', test_mode=True, transforms=[dict(type='Resize', size=32)]),
)
test_dataloader = val_dataloader
max_epochs = 15
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs),
]
auto_scale_lr = dict(base_batch_size=32)
randomness = dict(seed=0)
