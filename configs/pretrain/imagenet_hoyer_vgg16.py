# One-time-step spiking VGG16 on ImageNet, the authors' recipe (arXiv 2212.10170) with the neuron of the
# paper and of our detectors; their public code also leaves saturated potentials out of the extremum
# (saturated='exclude'; set it in the detector as well). 8 processes:
#   torchrun --nproc_per_node 8 tools/train.py configs/pretrain/imagenet_hoyer_vgg16.py --launcher pytorch
_base_ = [
    '_base_/preprocessor.py',
    '_base_/imagenet.py',
    '_base_/steps_150e.py',
    '_base_/runtime.py',
]
model = dict(
    backbone=dict(
        type='HoyerVGG',
        depth=16,
        out_indices=(4,),
        act_cfg=dict(type='HoyerSpike', extremum='channel'),
    ),
    head=dict(
        type='SpikingReadout',
        num_classes=1000,
        pool_size=7,
        hidden=(4096, 4096),
        bias=False,
        dropout=0.1,
        act_cfg=dict(type='HoyerSpike'),
    ),
)
