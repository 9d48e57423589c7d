# hoyer_ssd_vocformat.py from its ReLU twin, which stays as its teacher: 54 epochs and 18.
#   hoyer-det train configs/hoyer_ssd_vocformat.py --twin relu \
#       --cfg-options data_root=FOLDER train_cfg.max_epochs=54
#   hoyer-det train configs/pretrain/fine_tuning/from_ann_ssd_vocformat.py --cfg-options data_root=FOLDER
_base_ = '../../hoyer_ssd_vocformat.py'
ann = 'work_dirs/hoyer_ssd_vocformat_relu/epoch_54.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='FromANN', checkpoint=ann, prefix='backbone.')),
    # Same names in the twin, but for the thresholds.
    neck=dict(init_cfg=dict(type='Pretrained', checkpoint=ann, prefix='neck.')),
    bbox_head=dict(init_cfg=dict(type='Pretrained', checkpoint=ann, prefix='bbox_head.')),
)
custom_hooks = _base_.custom_hooks + [
    dict(type='CalibrateFromANNHook'),
    dict(type='DistillationHook', checkpoint=ann),
]
# The weights are good already: large steps would lose what they know.
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_epochs=18, val_interval=6)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=18,
        T_max=18,
        by_epoch=True,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
