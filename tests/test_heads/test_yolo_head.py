"""HoyerYOLOV3Head: MMDetection's head, spikes before the read-out, channels known beforehand."""

import torch
from hoyer_det.heads import HoyerYOLOV3Head
from hoyer_det.spiking import spiking_layers
from mmdet.models.dense_heads import YOLOV3Head
from mmengine.model import ExponentialMovingAverage
from torch import nn

SIZES = dict(
    num_classes=3,
    in_channels=[8, 4],
    out_channels=[16, 8],
    featmap_strides=[16, 8],
    anchor_generator=dict(
        type='YOLOAnchorGenerator',
        base_sizes=[[(30, 30), (60, 60)], [(10, 10), (20, 20)]],
        strides=[16, 8],
    ),
)
LEAKY = dict(type='LeakyReLU', negative_slope=0.1)


def features(seed: int = 0) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((2, 8, 4, 4), (2, 4, 8, 8))
    return tuple(torch.randint(0, 2, shape, generator=draw).float() for shape in shapes)


def test_with_the_activation_of_mmdetection_it_is_mmdetections_head():
    ours, theirs = HoyerYOLOV3Head(**SIZES, act_cfg=LEAKY), YOLOV3Head(**SIZES)
    theirs.load_state_dict(ours.state_dict())
    for a, b in zip(ours(features())[0], theirs(features())[0], strict=True):
        assert torch.equal(a, b)


def test_the_read_out_reads_spikes_and_is_real():
    torch.manual_seed(0)
    head = HoyerYOLOV3Head(**SIZES)
    head.init_weights()
    read = {}
    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(
                lambda m, i, n=name: read.update({n: sorted(i[0].unique().tolist())})
            )
    outs = head(features())[0]
    assert len(read) == 4 and all(values == [0, 1] for values in read.values())
    assert all(out.shape[1] == 2 * (5 + 3) and out.unique().numel() > 100 for out in outs)


def test_a_copy_made_before_the_first_batch_follows_channel_wise_extrema():
    head = HoyerYOLOV3Head(**SIZES, act_cfg=dict(type='HoyerSpike', extremum='channel'))
    copy = ExponentialMovingAverage(head, momentum=0.5, update_buffers=True)
    head.train()(features())
    copy.update_parameters(head)
    copied = spiking_layers(copy.module)
    for name, layer in spiking_layers(head).items():
        assert layer.running_extremum.numel() in (16, 8)
        assert torch.equal(copied[name].running_extremum, layer.running_extremum)


def test_biases_are_spread_behind_the_convolutions_of_a_spiking_head_alone():
    def biases(**options) -> torch.Tensor:
        torch.manual_seed(0)
        head = HoyerYOLOV3Head(**SIZES, bias_spread=0.5, **options)
        head.init_weights()
        return torch.cat([block.bn.bias for block in head.convs_bridge])

    assert 0.2 < biases().abs().max() <= 0.5
    assert biases(act_cfg=LEAKY).eq(0).all()
