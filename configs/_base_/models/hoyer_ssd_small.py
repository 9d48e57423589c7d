# SSD on a narrow spiking VGG, four feature levels at 160 px: minutes of training on a CPU.
_base_ = './hoyer_ssd300.py'
model = dict(
    backbone=dict(width=0.25),
    neck=dict(
        in_channels=(128, 256),
        out_channels=(128, 256, 128, 64),
        level_strides=(2, 2),
        level_paddings=(1, 1),
    ),
    bbox_head=dict(
        in_channels=(128, 256, 128, 64),
        num_classes=20,
        anchor_generator=dict(
            _delete_=True,
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=160,
            min_sizes=[14, 32, 64, 104],
            max_sizes=[32, 64, 104, 144],
            strides=[8, 16, 32, 64],
            ratios=[[2], [2, 3], [2, 3], [2]],
        ),
    ),
)
