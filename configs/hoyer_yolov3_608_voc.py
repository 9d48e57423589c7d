# One-time-step spiking YOLOv3 at 608 px, VGG16, Pascal VOC 07+12; all else as at 416 px.
_base_ = './hoyer_yolov3_voc.py'
input_size = 608
train_pipeline = [
    dict(step, scale=[(320, 320), (608, 608)]) if step['type'] == 'RandomResize' else step
    for step in _base_.train_pipeline
]
test_pipeline = [
    dict(step, scale=(608, 608)) if step['type'] == 'Resize' else step
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
