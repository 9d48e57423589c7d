# The ReLU twin of hoyer_retinanet_r18_vocformat.py: same network, data, schedule; norm biases start at 0.
_base_ = '../hoyer_retinanet_r18_vocformat.py'
act_cfg = dict(type='ReLU')
detector = _base_.model.detector
model = dict(
    detector,
    _delete_=True,
    backbone=dict(detector.backbone, act_cfg=act_cfg),
    neck=dict(detector.neck, act_cfg=act_cfg),
)
custom_hooks = [
    hook
    for hook in _base_.custom_hooks
    if hook['type'] not in ('HoyerRegularizerHook', 'SpikeRateHook', 'SpikeStatisticsHook')
]
