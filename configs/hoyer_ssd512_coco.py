# One-time-step spiking SSD512, VGG16, COCO 2017.
_base_ = [
    '_base_/models/hoyer_ssd512.py',
    '_base_/datasets/coco_ssd512.py',
    '_base_/schedules/adamw_24e.py',
    '_base_/default_runtime.py',
]
