# hoyer_ssd_vocformat.py in 12 epochs instead of 72, its backbone trained on the synthetic shapes before.
# The baseline of the other files here.
_base_ = '../../hoyer_ssd_vocformat.py'
model = dict(
    # As the network was trained on the shapes.
    backbone=dict(
        shortcut=False,
        out_stream=False,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/hoyer_ssd_shapes/epoch_24.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(shortcut=False),
)
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=6)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs),
]
