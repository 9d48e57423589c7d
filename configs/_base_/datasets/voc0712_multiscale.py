# Pascal VOC 07+12 at up to 1000x600 px, the short side drawn from 480 to 600 px in training.
_base_ = './voc0712_ssd300.py'
input_size = (1000, 600)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=[(1000, 480), (1000, 600)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(step, scale=(1000, 600), keep_ratio=True) if step['type'] == 'Resize' else step
    for step in _base_.test_pipeline
]
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    drop_last=False,  # the sampler of batches would drop whole ones, too, other numbers in each process
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        times=3,
        dataset=dict(
            datasets=[
                dict(dataset, pipeline=train_pipeline)
                for dataset in _base_.train_dataloader.dataset.dataset.datasets
            ]
        ),
    ),
)
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
