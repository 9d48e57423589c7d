# The backbone of hoyer_ssd_vocformat.py on the objects of your own data in Pascal VOC layout, cut out:
#   hoyer-det train configs/pretrain/objects_hoyer_vgg11.py --cfg-options data_root=FOLDER
# then configs/pretrain/fine_tuning/from_objects_ssd_vocformat.py.
_base_ = ['_base_/preprocessor.py', '../_base_/schedules/small_cpu.py', '_base_/runtime.py']
data_root = 'data/my_voc/'
model = dict(
    backbone=dict(
        type='HoyerVGG',
        depth=11,
        width=0.25,
        shortcut=True,
        out_indices=(4,),
        act_cfg=dict(type='HoyerSpike', extremum='channel'),
        bias_spread=1.0,
    ),
    head=dict(type='SpikingReadout', num_classes=20, dropout=0.1),
)
size = 64
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ObjectCropsDataset',
        dataset=dict(
            type='VOCFormatDataset',
            data_root=None,
            ann_file=None,
            data_prefix=dict(sub_data_root=''),
        ),
        transforms=[
            dict(type='RandomResizedCrop', size=size, scale=(0.5, 1.0), ratio=(0.8, 1.25)),
            dict(type='RandomHorizontalFlip'),
            dict(type='ColorJitter', brightness=0.2, contrast=0.2, saturation=0.2),
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ObjectCropsDataset',
        dataset=dict(
            type='VOCFormatDataset',
            data_root=None,
            ann_file=None,
            data_prefix=dict(sub_data_root=''),
            test_mode=True,
        ),
        transforms=[dict(type='Resize', size=(size, size))],
    ),
)
test_dataloader = val_dataloader
max_epochs = 30
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=100),
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs),
]
auto_scale_lr = dict(base_batch_size=32)
custom_hooks = _base_.custom_hooks + [dict(type='CenterPotentialsHook')]
randomness = dict(seed=0)
