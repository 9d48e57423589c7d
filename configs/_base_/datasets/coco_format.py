# Any folder with annotations in COCO format. The four names below are paths in data_root; each can be
# given on the command line, after --cfg-options:
#   data_root=FOLDER                                                             COCO's own layout
#   data_root=FOLDER train_ann=a.json train_images=a/ val_ann=b.json val_images=b/         any other
# With a single annotation file, name it twice to evaluate on what is trained on.
# They are put into the data sets where these have None, as is data_root; classes are read from the
# training annotations and num_classes follows them, under MMDetection's own train.py and test.py as well.
_base_ = '../pipelines/small160.py'
runner_type = 'DatasetRunner'
dataset_type = 'CocoFormatDataset'
data_root = 'data/my_coco/'
train_ann = 'annotations/instances_train2017.json'
train_images = 'train2017/'
val_ann = 'annotations/instances_val2017.json'
val_images = 'val2017/'

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
        data_prefix=dict(img=None),
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
        data_prefix=dict(img=None),
        test_mode=True,
        pipeline={{_base_.test_pipeline}},
    ),
)
test_dataloader = val_dataloader
# Without ann_file the metric takes the ground truth that the data set gives it.
val_evaluator = dict(type='CocoMetric', metric='bbox')
test_evaluator = val_evaluator
