# A ReLU network of about the estimated energy of hoyer_ssd_vocformat.py (45 nm, computation alone):
# a multiply-accumulate costs five additions, so it can afford about a quarter of the width.
_base_ = './relu_ssd_vocformat.py'
channels = (34, 68, 34, 17)
model = dict(
    backbone=dict(width=0.066),
    neck=dict(in_channels=channels[:2], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)
