# One-time-step spiking ResNet-18 on ImageNet, the authors' recipe (arXiv 2212.10170), 8 processes.
# The neuron is the paper's; see imagenet_hoyer_vgg16.py.
_base_ = [
    '_base_/preprocessor.py',
    '_base_/imagenet.py',
    '_base_/steps_150e.py',
    '_base_/runtime.py',
]
act_cfg = dict(type='HoyerSpike')
model = dict(
    # The neuron of the classifier stands behind the pooling; a detector's stand at the outputs.
    backbone=dict(
        type='HoyerResNet', depth=18, out_indices=(3,), output='potential', act_cfg=act_cfg
    ),
    head=dict(type='SpikingReadout', num_classes=1000, input_act=True, act_cfg=act_cfg),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
