# ImageNet-1k in folders train/ and val/, each with a folder of images per class.
data_root = 'data/imagenet/'
train_dataloader = dict(
    batch_size=64,  # 8 processes
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='TorchvisionDataset',
        name='ImageFolder',
        data_root=data_root,
        folder='train',
        transforms=[
            dict(type='RandomResizedCrop', size=224),
            dict(type='RandomHorizontalFlip'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='TorchvisionDataset',
        name='ImageFolder',
        data_root=data_root,
        folder='val',
        transforms=[dict(type='Resize', size=256), dict(type='CenterCrop', size=224)],
    ),
)
test_dataloader = val_dataloader
