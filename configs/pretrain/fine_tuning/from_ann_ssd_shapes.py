# hoyer_ssd_shapes.py from its ReLU twin instead of random weights. First train the twin:
#   hoyer-det train configs/hoyer_ssd_shapes.py --twin relu
_base_ = '../../hoyer_ssd_shapes.py'
ann = 'work_dirs/hoyer_ssd_shapes_relu/epoch_24.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='FromANN', checkpoint=ann, prefix='backbone.')),
    # Same names in the twin, but for the thresholds.
    neck=dict(init_cfg=dict(type='Pretrained', checkpoint=ann, prefix='neck.')),
    bbox_head=dict(init_cfg=dict(type='Pretrained', checkpoint=ann, prefix='bbox_head.')),
)
custom_hooks = _base_.custom_hooks + [dict(type='CalibrateFromANNHook')]
