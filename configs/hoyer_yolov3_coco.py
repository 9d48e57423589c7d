# One-time-step spiking YOLOv3 at 416 px, VGG16, COCO 2017.
_base_ = [
    '_base_/models/hoyer_yolov3.py',
    '_base_/datasets/coco_yolov3.py',
    '_base_/schedules/adamw_24e.py',
    '_base_/default_runtime.py',
]
