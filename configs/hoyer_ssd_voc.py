# One-time-step spiking SSD300, VGG16, Pascal VOC 07+12.
_base_ = [
    '_base_/models/hoyer_ssd300.py',
    '_base_/datasets/voc0712_ssd300.py',
    '_base_/schedules/adamw_24e.py',
    '_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=20, anchor_generator=dict(basesize_ratio_range=(0.2, 0.9))))
