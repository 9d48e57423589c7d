# hoyer_ssd_shapes.py fine-tuned with weights of 4 bits, from the published model:
#   hoyer-det train configs/pretrain/fine_tuning/rounded_ssd_shapes.py --cfg-options load_from=ssd_shapes
# Other bits: model.backbone.conv_cfg.bits=2 model.neck.conv_cfg.bits=2
_base_ = '../../hoyer_ssd_shapes.py'
conv_cfg = dict(type='RoundedConv2d', bits=4)
model = dict(backbone=dict(conv_cfg=conv_cfg), neck=dict(conv_cfg=conv_cfg))
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs),
]
