# hoyer_ssd_shapes.py from its ReLU twin instead of random weights. First train the twin:
#   python tools/train.py configs/twins/relu_ssd_shapes.py
_base_ = '../../hoyer_ssd_shapes.py'
twin = 'work_dirs/relu_ssd_shapes/epoch_24.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='FromANN', checkpoint=twin, prefix='backbone.')),
    # Same names in the twin, but for the thresholds.
    neck=dict(init_cfg=dict(type='Pretrained', checkpoint=twin, prefix='neck.')),
    bbox_head=dict(init_cfg=dict(type='Pretrained', checkpoint=twin, prefix='bbox_head.')),
)
custom_hooks = _base_.custom_hooks + [dict(type='CalibrateThresholdsHook')]
