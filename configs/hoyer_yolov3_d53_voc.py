# One-time-step spiking YOLOv3, DarkNet-53 of MMDetection made spiking by its act_cfg, Pascal VOC 07+12.
# Its residual sums add spikes to spikes: what reads them (half of its convolutions, the neck's first ones)
# reads small whole numbers, not 0/1.
_base_ = './hoyer_yolov3_voc.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='Darknet',
        depth=53,
        out_indices=(3, 4, 5),
        act_cfg=dict(type='HoyerSpike'),
    ),
    neck=dict(in_channels=[1024, 512, 256]),
)
