# One-time-step spiking VGG16 on CIFAR-10, the authors' recipe (arXiv 2212.10170): Adam (amsgrad) 1e-4,
# 600 epochs, batches of 128. Weight decay and steps are carried over from their ImageNet recipe.
# The neuron is the paper's; see imagenet_hoyer_vgg16.py.
_base_ = [
    '_base_/preprocessor.py',
    '_base_/cifar10.py',
    '_base_/steps_150e.py',
    '_base_/runtime.py',
]
model = dict(
    backbone=dict(
        type='HoyerVGGCIFAR',
        depth=16,
        out_indices=(4,),
        act_cfg=dict(type='HoyerSpike', extremum='channel'),
    ),
    head=dict(
        type='SpikingReadout',
        num_classes=10,
        pool_size=2,
        hidden=(4096, 4096),
        bias=False,
        dropout=0.1,
        act_cfg=dict(type='HoyerSpike'),
    ),
)
train_cfg = dict(max_epochs=600, val_interval=10)
optim_wrapper = dict(optimizer=dict(amsgrad=True))
param_scheduler = [dict(type='MultiStepLR', milestones=[360, 480, 540], gamma=0.2)]
auto_scale_lr = dict(base_batch_size=128)
