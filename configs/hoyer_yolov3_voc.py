# One-time-step spiking YOLOv3 at 416 px, VGG16, Pascal VOC 07+12.
_base_ = [
    '_base_/models/hoyer_yolov3.py',
    '_base_/datasets/voc0712_yolov3.py',
    '_base_/schedules/adamw_24e.py',
    '_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=20))
