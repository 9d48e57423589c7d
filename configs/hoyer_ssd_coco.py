# One-time-step spiking SSD300, VGG16, COCO 2017.
_base_ = [
    '_base_/models/hoyer_ssd300.py',
    '_base_/datasets/coco_ssd300.py',
    '_base_/schedules/adamw_24e.py',
    '_base_/default_runtime.py',
]
