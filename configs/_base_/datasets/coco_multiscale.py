# COCO 2017 as MMDetection reads it, with the short side drawn from 640 to 800 px in training.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'
train_pipeline = [
    dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], keep_ratio=True)
    if step['type'] == 'Resize'
    else step
    for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
# The pictures of validation show the ground truth beside the detections.
test_pipeline = [
    dict(step, meta_keys=(*step['meta_keys'], 'instances'))
    if step['type'] == 'PackDetInputs'
    else step
    for step in _base_.test_pipeline
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
