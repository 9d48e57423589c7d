# CIFAR-10; torchvision downloads it (170 MB) into data_root where it is missing.
data_root = 'data/cifar10/'
train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='TorchvisionDataset',
        name='CIFAR10',
        data_root=data_root,
        arguments=dict(train=True, download=True),
        transforms=[
            dict(type='RandomCrop', size=32, padding=4),
            dict(type='RandomHorizontalFlip'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='TorchvisionDataset',
        name='CIFAR10',
        data_root=data_root,
        arguments=dict(train=False, download=True),
        transforms=[],
    ),
)
test_dataloader = val_dataloader
