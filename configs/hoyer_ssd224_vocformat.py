# One-time-step spiking SSD on photographs at 224 px: goes on with strong augmentation from a checkpoint of
# hoyer_ssd_vocformat.py, whose weights at 160 px are of the same shapes (docs/learning.md):
#   hoyer-det train configs/hoyer_ssd224_vocformat.py --cfg-options data_root=FOLDER load_from=CHECKPOINT
_base_ = './hoyer_ssd_vocformat.py'
input_size = 224
resize = dict(type='Resize', scale=(input_size, input_size), keep_ratio=False)
start = _base_.train_pipeline[:2]
strong = [
    dict(
        type='PhotoMetricDistortion',
        brightness_delta=24,
        contrast_range=(0.7, 1.3),
        saturation_range=(0.7, 1.3),
        hue_delta=10,
    ),
    dict(type='Expand', mean=[123.675, 116.28, 103.53], to_rgb=True, ratio_range=(1, 2), prob=0.5),
    dict(type='QuickMinIoURandomCrop', min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3),
]
mild = [dict(type='QuickMinIoURandomCrop', min_ious=(0.3, 0.5, 0.7, 0.9), min_crop_size=0.5)]
end = [resize, *_base_.train_pipeline[4:]]
train_dataloader = dict(dataset=dict(pipeline=start + strong + end))
test_pipeline = [_base_.test_pipeline[0], resize, *_base_.test_pipeline[2:]]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# Anchors as large in relation to the image as those at 160 px.
model = dict(
    bbox_head=dict(
        anchor_generator=dict(
            input_size=input_size, min_sizes=[20, 45, 90, 146], max_sizes=[45, 90, 146, 202]
        )
    )
)
max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs),
]
# The last epochs on images like those to come; where train_cfg.max_epochs is another, set switch_epoch, too.
custom_hooks = _base_.custom_hooks + [
    dict(type='PipelineSwitchHook', switch_epoch=max_epochs - 4, switch_pipeline=start + mild + end)
]
