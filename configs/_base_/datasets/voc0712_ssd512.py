# Pascal VOC 07+12 at 512 px; all else as at 300 px.
_base_ = './voc0712_ssd300.py'
input_size = 512
train_pipeline, test_pipeline = (
    [
        dict(step, scale=(input_size, input_size)) if step['type'] == 'Resize' else step
        for step in pipeline
    ]
    for pipeline in (_base_.train_pipeline, _base_.test_pipeline)
)
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
