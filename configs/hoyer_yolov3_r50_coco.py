# One-time-step spiking YOLOv3 at 416 px, ResNet-50, COCO 2017.
_base_ = './hoyer_yolov3_coco.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='HoyerResNet',
        depth=50,
        out_indices=(1, 2, 3),
        act_cfg=dict(type='HoyerSpike'),
        bias_spread=1.0,
        init_cfg=dict(type='FromANN', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(in_channels=[2048, 1024, 512]),
)
