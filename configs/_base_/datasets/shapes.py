# The embedded shapes, generated into data/shapes/ when they are first needed.
_base_ = './voc_format.py'
dataset_type = 'ShapesDataset'
data_root = 'data/shapes/'
train_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, ann_file='ImageSets/Main/trainval.txt')
)
val_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, ann_file='ImageSets/Main/test.txt')
)
test_dataloader = val_dataloader
