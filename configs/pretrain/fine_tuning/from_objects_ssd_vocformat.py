# hoyer_ssd_vocformat.py with the backbone of configs/pretrain/objects_hoyer_vgg11.py.
_base_ = '../../hoyer_ssd_vocformat.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/objects_hoyer_vgg11/epoch_30.pth',
            prefix='backbone.',
        )
    )
)
