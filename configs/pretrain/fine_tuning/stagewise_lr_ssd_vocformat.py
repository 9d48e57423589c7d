# Fine-tuning with learning rates that fall from the head towards the image.
_base_ = './from_shapes_ssd_vocformat.py'
optim_wrapper = dict(constructor='StagewiseLRConstructor', paramwise_cfg=dict(stage_lr_decay=0.7))
