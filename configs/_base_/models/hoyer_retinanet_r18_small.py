# RetinaNet on a spiking ResNet-18 of half the width, four levels at 160 px: minutes on a CPU.
_base_ = './hoyer_retinanet_r18.py'
model = dict(
    detector=dict(
        backbone=dict(base_channels=32),
        neck=dict(in_channels=[64, 128, 256], out_channels=64, num_outs=4),
        bbox_head=dict(
            num_classes=20,
            num_ins=4,
            in_channels=64,
            stacked_convs=2,
            feat_channels=64,
            # objects half as large as those of the full images
            anchor_generator=dict(octave_base_scale=2, strides=[8, 16, 32, 64]),
        ),
    )
)
