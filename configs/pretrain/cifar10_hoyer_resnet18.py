# One-time-step spiking ResNet-18 on CIFAR-10: SGD 0.1 (arXiv 2212.10170). Momentum, epochs, weight decay
# and steps are those of cifar10_hoyer_vgg16.py or customary; the authors' are not known to us.
_base_ = './cifar10_hoyer_vgg16.py'
act_cfg = dict(type='HoyerSpike')
model = dict(
    backbone=dict(
        _delete_=True,
        type='HoyerResNetCIFAR',
        depth=18,
        out_indices=(3,),
        output='potential',
        act_cfg=act_cfg,
    ),
    head=dict(
        _delete_=True, type='SpikingReadout', num_classes=10, input_act=True, act_cfg=act_cfg
    ),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)
)
