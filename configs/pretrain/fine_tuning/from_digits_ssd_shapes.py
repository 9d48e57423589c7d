# hoyer_ssd_shapes.py with the backbone of configs/pretrain/digits_hoyer_vgg11.py.
_base_ = '../../hoyer_ssd_shapes.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/digits_hoyer_vgg11/epoch_15.pth',
            prefix='backbone.',
        )
    )
)
