# One-time-step spiking ResNet-50 on ImageNet, with the recipe of the ResNet-18.
_base_ = './imagenet_hoyer_resnet18.py'
model = dict(backbone=dict(depth=50))
