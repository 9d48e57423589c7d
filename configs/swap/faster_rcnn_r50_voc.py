# Faster R-CNN on HoyerResNet-50; neck and heads are MMDetection's, short side 480 to 600 px.
_base_ = ['mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py', './_spiking.py']
custom_hooks = _base_.spiking_hooks
optim_wrapper = _base_.spiking_optim_wrapper
model = dict(
    backbone=dict(_delete_=True, type='HoyerResNet', depth=50, bias_spread=1.0),
)
train_pipeline = [
    dict(type='RandomResize', scale=[(1000, 480), (1000, 600)], keep_ratio=True)
    if step['type'] == 'Resize'
    else step
    for step in _base_.train_pipeline
]
# The base repeats a concatenation of two data sets.
datasets = _base_.train_dataloader.dataset.dataset.datasets
train_dataloader = dict(
    dataset=dict(
        dataset=dict(datasets=[dict(dataset, pipeline=train_pipeline) for dataset in datasets])
    )
)
