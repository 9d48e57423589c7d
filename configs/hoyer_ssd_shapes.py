# One-time-step spiking SSD on the embedded shapes: minutes on a CPU, no download.
_base_ = [
    '_base_/models/hoyer_ssd_small.py',
    '_base_/datasets/shapes.py',
    '_base_/schedules/small_cpu.py',
    '_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=6))
randomness = dict(seed=0)
