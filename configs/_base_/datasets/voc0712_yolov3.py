# Pascal VOC 07+12 for YOLOv3: images of random size up to 416 px that keep their shape, milder crops.
_base_ = './voc0712_ssd300.py'
input_size = 416
changes = dict(
    Expand=dict(ratio_range=(1, 2)),
    QuickMinIoURandomCrop=dict(min_ious=(0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
    Resize=dict(type='RandomResize', scale=[(320, 320), (416, 416)], keep_ratio=True),
)
train_pipeline = [dict(step, **changes.get(step['type'], {})) for step in _base_.train_pipeline]
test_pipeline = [
    dict(step, scale=(416, 416), keep_ratio=True) if step['type'] == 'Resize' else step
    for step in _base_.test_pipeline
]
train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            datasets=[
                dict(dataset, pipeline=train_pipeline)
                for dataset in _base_.train_dataloader.dataset.dataset.datasets
            ]
        )
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
