# Any folder in Pascal VOC layout (JPEGImages, Annotations, ImageSets/Main): set data_root to it.
# It is put into the data sets where these have None; classes are read from the annotations, the splits
# (ann_file) from ImageSets/Main, and num_classes follows them, under MMDetection's own train.py and
# test.py as well.
_base_ = '../pipelines/small160.py'
runner_type = 'DatasetRunner'
dataset_type = 'VOCFormatDataset'
data_root = 'data/my_voc/'
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,  # batch norm and extremum of a left-over single image would say little
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=None,
        ann_file=None,
        data_prefix=dict(sub_data_root=''),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline={{_base_.train_pipeline}},
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=None,
        ann_file=None,
        data_prefix=dict(sub_data_root=''),
        test_mode=True,
        pipeline={{_base_.test_pipeline}},
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='VOCMetric', metric='mAP', eval_mode='area'),
    dict(type='CocoMetric', metric='bbox'),
]
test_evaluator = val_evaluator
