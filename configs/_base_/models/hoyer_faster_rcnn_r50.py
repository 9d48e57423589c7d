# MMDetection's Faster R-CNN with a spiking ResNet-50 and FPN. The two heads stay as they are: what
# RoIAlign hands to the second one are averages of spikes.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
act_cfg = dict(type='HoyerSpike')
model = dict(
    backbone=dict(_delete_=True, type='HoyerResNet', depth=50, act_cfg=act_cfg, bias_spread=1.0),
    neck=dict(type='HoyerFPN', act_cfg=act_cfg, bias_spread=1.0),
)
