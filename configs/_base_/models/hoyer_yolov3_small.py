# YOLOv3 with two levels on a narrow spiking VGG11 that ends at stride 16, for images of 160 px: minutes
# of training on a CPU. A path through all three levels is 28 neurons deep, and learns more slowly.
_base_ = './hoyer_yolov3.py'
model = dict(
    backbone=dict(depth=11, width=0.25, out_indices=(2, 3)),
    neck=dict(num_scales=2, in_channels=[128, 64], out_channels=[128, 64]),
    bbox_head=dict(
        in_channels=[128, 64],
        out_channels=[256, 128],
        num_classes=20,
        featmap_strides=[16, 8],
        # those of YOLOv3-tiny for COCO at 416 px, scaled to 160 px
        anchor_generator=dict(
            base_sizes=[[(31, 32), (52, 65), (132, 123)], [(4, 5), (9, 10), (14, 22)]],
            strides=[16, 8],
        ),
    ),
)
