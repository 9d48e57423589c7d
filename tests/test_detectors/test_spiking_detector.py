"""SpikingDetector on MMDetection's own detectors: what spikes, what learns, what the user sees."""

import copy

import pytest
import torch
from hoyer_det.detectors import SpikePerCall, spiking_detector
from hoyer_det.spiking import spiking_layers
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from small_detectors import SMALL, batch, build_spiking, small_config
from torch import nn

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.SiLU)


@pytest.fixture
def table(monkeypatch) -> list[str]:
    """The lines that the builder logs."""
    lines: list[str] = []
    monkeypatch.setattr(
        spiking_detector, 'print_log', lambda text, **_: lines.extend(text.splitlines())
    )
    return lines


def row(table: list[str], first: str) -> list[str]:
    """The cells of the line whose first place is ``first``."""
    (line,) = [line for line in table if f'  {first}  ' in f'{line}  ']
    return [cell.strip() for cell in line.split('  ') if cell.strip()]


def loss(model: nn.Module) -> torch.Tensor:
    return model.parse_losses(model(**batch(model), mode='loss'))[0]


@pytest.mark.parametrize('name', sorted(SMALL))
def test_detector_trains_predicts_and_keeps_its_names(name):
    original = MODELS.build(small_config(name))
    model = build_spiking(name)
    assert type(model) is type(original)

    layers = spiking_layers(model)
    keys, added = set(original.state_dict()), set(model.state_dict()) - set(original.state_dict())
    assert keys < set(model.state_dict())
    assert {key.rpartition('.')[0] for key in added} == set(layers)
    missing, unexpected = model.load_state_dict(original.state_dict(), strict=False)
    assert set(missing) == added and not unexpected

    model.init_weights()
    loss(model.train()).backward()
    for layer_name, layer in layers.items():
        assert layer.threshold.grad is not None, layer_name
        assert torch.isfinite(layer.threshold.grad), layer_name
    with torch.no_grad():
        results = model.eval()(**batch(model, training=False), mode='predict')
    assert len(results) == 2 and hasattr(results[0], 'pred_instances')


def test_every_place_of_a_residual_block_has_its_own_neuron_and_average():
    model = build_spiking('faster_rcnn', parts=['backbone'])
    sites = [m for m in model.modules() if isinstance(m, SpikePerCall)]
    assert len(sites) == 16 and {len(s) for s in sites} == {3}
    seen: dict[int, tuple] = {}
    for neuron in spiking_layers(model).values():
        neuron.register_forward_hook(lambda m, i, o: seen.update({id(m): (m, i[0], o)}))
    model.train()
    with torch.no_grad():
        model.backbone(torch.rand(2, 3, 64, 64))
        assert len(seen) == 16 * 3 + 1
        block = model.backbone.layer2[0].relu
        # The third reads four times the channels of the first two, at half the side of the first.
        assert [seen[id(n)][1].shape[1] for n in block] == [16, 16, 64]
        assert [seen[id(n)][1].shape[-1] for n in block] == [16, 8, 8]
        # After one batch the corrected average is that batch's extremum: sum c^2 / sum c.
        for neuron, potential, _ in seen.values():
            c = potential.double().clamp(0, 1)
            expected = c.square().sum() / c.sum()
            average = neuron.running_extremum / neuron.running_weight
            assert average.item() == pytest.approx(expected.item(), rel=1e-5)

        levels = {key: m.running_extremum / m.running_weight for key, (m, _, _) in seen.items()}
        seen.clear()
        model.eval().backbone(torch.rand(1, 3, 64, 64) * 3)
        assert set(seen) == set(levels)
        for key, (_, potential, spikes) in seen.items():
            assert torch.equal(spikes, (potential >= levels[key]).float())


def test_table_says_what_was_converted_and_what_was_left(table):
    MODELS.build(dict(type='SpikingDetector', detector=small_config('faster_rcnn')))
    assert table[0] == 'SpikingDetector: FasterRCNN'
    assert row(table, 'backbone.relu')[:4] == ['spiking', '1', '1', 'ReLU']
    assert row(table, 'backbone.layer1.0.relu')[:5] == [
        *('spiking', '16', '48', 'ReLU', 'Bottleneck.relu'),
    ]
    # Behind each of two fully connected layers.
    assert row(table, 'roi_head.bbox_head.relu')[:3] == ['spiking', '1', '2']
    assert row(table, 'rpn_head') == [
        *('left', '1', '0', 'relu', 'RPNHead', 'rpn_head', 'called as a function'),
    ]


def test_what_is_left_has_a_reason(table):
    retinanet = MODELS.build(dict(type='SpikingDetector', detector=small_config('retinanet')))
    assert row(table, 'bbox_head.relu')[-1] == 'never called in a forward pass'
    assert isinstance(retinanet.bbox_head.relu, nn.ReLU)
    table.clear()
    rtmdet = MODELS.build(dict(type='SpikingDetector', detector=small_config('rtmdet')))
    assert row(table, 'backbone.stage1.1.attention.act')[-1] == 'gate'
    assert isinstance(rtmdet.backbone.stage1[1].attention.act, nn.Hardsigmoid)
    table.clear()
    # An FPN calls F.relu only with relu_before_extra_convs, which FCOS sets and RetinaNet does not.
    MODELS.build(dict(type='SpikingDetector', detector=small_config('fcos')))
    assert row(table, 'neck')[-1] == 'called as a function'


def test_head_shared_by_feature_levels_has_a_neuron_for_each_place_and_level():
    model = build_spiking('vfnet', parts=['bbox_head'])
    head = model.bbox_head
    calls: list[tuple[str, int]] = []
    for name, sites, number in (('relu', head.relu, 10), ('tower', head.cls_convs[0].activate, 5)):
        assert isinstance(sites, SpikePerCall) and len(sites) == number
        for index, neuron in enumerate(sites):
            neuron.register_forward_hook(
                lambda m, i, o, call=(name, index): calls.append(call) if o.numel() else None
            )
    levels = [torch.rand(2, 32, side, side) for side in (16, 8, 4, 2, 1)]
    with torch.no_grad():
        head(levels)
    expected = [[('tower', k), ('relu', 2 * k), ('relu', 2 * k + 1)] for k in range(5)]
    assert calls == sum(expected, [])
    with (
        torch.no_grad(),
        pytest.raises(RuntimeError, match='ran 4 times in a forward of VFNetHead'),
    ):
        head(levels[:4])


def test_levels_of_unequal_scale_fire_alike_in_training_and_evaluation():
    model = build_spiking('fcos', parts=['bbox_head'])
    head = model.bbox_head
    generator = torch.Generator().manual_seed(0)
    levels = [
        torch.rand(2, 32, side, side, generator=generator) * scale
        for side, scale in ((16, 0.02), (8, 0.1), (4, 0.5), (2, 2), (1, 10))
    ]
    rates: list[float] = []
    conv = head.cls_convs[0]
    conv.gn = nn.Identity()  # would bring all levels to one scale
    for neuron in conv.activate:
        neuron.register_forward_hook(lambda m, i, o: rates.append(o.mean().item()))
    with torch.no_grad():
        head.train()(levels)
        head.eval()(levels)
    assert all(0.01 < rate < 0.99 for rate in rates[:5])
    assert rates[5:] == pytest.approx(rates[:5], abs=0.01)


def test_only_the_named_parts_are_converted():
    model = build_spiking('faster_rcnn', parts=['roi_head.bbox_head'])
    assert set(spiking_layers(model)) == {'roi_head.bbox_head.relu.0', 'roi_head.bbox_head.relu.1'}
    assert isinstance(model.backbone.relu, nn.ReLU)
    model = build_spiking('yolox')
    assert not any(isinstance(m, RECTIFIERS) for m in model.modules())


def test_neuron_is_built_from_act_cfg_and_knows_its_channels():
    act_cfg = dict(type='HoyerSpike', extremum='channel', threshold=0.5)
    model = build_spiking('fcos', parts=['bbox_head', 'backbone'], act_cfg=act_cfg)
    tower = model.bbox_head.cls_convs[0].activate[4]
    assert tower.threshold.item() == 0.5 and tower.running_extremum.shape == (32,)
    assert [neuron.num_features for neuron in model.backbone.layer2[0].relu] == [16, 16, 64]


@pytest.mark.parametrize('name', ['faster_rcnn', 'detr', 'rtmdet'])
def test_average_made_before_the_first_batch_follows_channelwise_extrema(name):
    model = build_spiking(name, act_cfg=dict(type='HoyerSpike', extremum='channel'))
    average = ExponentialMovingAverage(model, momentum=0.5, update_buffers=True)  # as EMAHook does
    loss(model.train())
    average.update_parameters(model)  # the first copies
    with torch.no_grad():
        loss(model)
    average.update_parameters(model)
    averaged = spiking_layers(average.module)
    channelwise = 0
    for layer_name, layer in spiking_layers(model).items():
        assert averaged[layer_name].running_weight.shape == layer.running_weight.shape
        channelwise += layer.extremum == 'channel'
        assert (averaged[layer_name].running_weight.max() > 0) == (layer.running_weight.max() > 0)
    assert channelwise > 10
    with torch.no_grad():
        average.module.eval()(**batch(model, training=False), mode='predict')


@pytest.mark.parametrize('channels', [1, 4])
def test_images_may_have_other_channels_than_three(channels):
    cfg = small_config('retinanet')
    cfg.data_preprocessor = dict(type='DetDataPreprocessor')
    cfg.backbone.in_channels = channels
    model = MODELS.build(dict(type='SpikingDetector', detector=cfg))
    assert {name.split('.')[0] for name in spiking_layers(model)} == {'backbone', 'bbox_head'}
    with torch.no_grad():
        scores, _ = model(torch.rand(1, channels, 64, 64), mode='tensor')
    assert scores[0].shape[-2:] == (8, 8)


class FoldedResNet(ResNet):
    """Lays squares of 2 x 2 pixels on one another, so that its first convolution reads 12 channels."""

    def forward(self, x):
        return super().forward(nn.functional.pixel_unshuffle(x, 2))


def test_first_convolution_need_not_read_the_image():
    cfg = small_config('retinanet')
    cfg.backbone.update(type=FoldedResNet, in_channels=12)
    model = MODELS.build(dict(type='SpikingDetector', detector=cfg))
    assert len(spiking_layers(model)) == len(spiking_layers(build_spiking('retinanet')))


def test_build_leaves_the_generators_alone():
    cfg = small_config('retinanet')
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    expected = torch.rand(3)
    torch.manual_seed(0)
    spiking = MODELS.build(dict(type='SpikingDetector', detector=small_config('retinanet')))
    assert torch.equal(torch.rand(3), expected)
    weights = spiking.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor), name


def test_detector_that_does_not_run_is_one_line():
    cfg = small_config('retinanet')
    cfg.neck.in_channels = [8, 16, 32, 65]
    with pytest.raises(
        ValueError, match='bbox_head.* of RetinaNet cannot be .*: RuntimeError: .*65'
    ):
        MODELS.build(dict(type='SpikingDetector', detector=cfg))
    # The backbone alone runs.
    MODELS.build(dict(type='SpikingDetector', detector=cfg, parts=['backbone']))


def test_neurons_of_frozen_stages_are_frozen_from_the_start():
    cfg = small_config('faster_rcnn')
    cfg.backbone.frozen_stages = 1
    model = MODELS.build(dict(type='SpikingDetector', detector=cfg, parts=['backbone']))

    def frozen() -> set[str]:
        return {
            name.split('.')[1]
            for name, layer in spiking_layers(model).items()
            if not layer.training and not layer.threshold.requires_grad
        }

    assert frozen() == {'layer1'}
    model.train()
    assert frozen() == {'layer1'}


def test_given_config_is_left_alone_and_takes_the_preprocessor_of_the_runner():
    cfg = small_config('retinanet')
    preprocessor = cfg.pop('data_preprocessor')
    before = copy.deepcopy(cfg)
    model = MODELS.build(
        dict(
            type='SpikingDetector',
            detector=cfg,
            data_preprocessor={**preprocessor, 'std': [2.0] * 3},
        )
    )
    assert cfg == before
    assert model.data_preprocessor.std.flatten().tolist() == [2.0] * 3
    cfg.data_preprocessor = {**preprocessor, 'std': [3.0] * 3}
    model = MODELS.build(
        dict(
            type='SpikingDetector',
            detector=cfg,
            data_preprocessor={**preprocessor, 'std': [2.0] * 3},
        )
    )
    assert model.data_preprocessor.std.flatten().tolist() == [3.0] * 3


def test_config_file_on_a_shipped_config(tmp_path):
    file = tmp_path / 'spiking_fcos.py'
    file.write_text(
        "_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'\n"
        "custom_imports = dict(imports=['hoyer_det'], allow_failed_imports=False)\n"
        "model = dict(_delete_=True, type='SpikingDetector', detector=_base_.model, "
        "parts=['backbone'])\n"
    )
    cfg = Config.fromfile(file)
    assert set(cfg.model) == {'type', 'detector', 'parts'}
    model = MODELS.build(cfg.model)
    assert type(model).__name__ == 'FCOS' and model.bbox_head.num_classes == 80
    assert {name.split('.')[0] for name in spiking_layers(model)} == {'backbone'}
    # Its dump, as a checkpoint keeps it, builds the same, and a heir changes one value in it.
    dumped, heir = tmp_path / 'dumped.py', tmp_path / 'heir.py'
    cfg.dump(dumped)
    heir.write_text(
        "_base_ = 'dumped.py'\nmodel = dict(detector=dict(bbox_head=dict(num_classes=3)))\n"
    )
    heir_model = MODELS.build(Config.fromfile(heir).model)
    assert heir_model.bbox_head.num_classes == 3
    assert set(spiking_layers(heir_model)) == set(spiking_layers(model))


def test_spiking_backbone_may_be_named_as_a_part():
    cfg = small_config('retinanet')
    cfg.backbone = dict(type='HoyerVGG', depth=11, width=0.125)
    cfg.neck.in_channels = [16, 32, 64, 64]
    model = MODELS.build(
        dict(type='SpikingDetector', detector=cfg, parts=['backbone', 'bbox_head'])
    )
    assert len(spiking_layers(model)) == 8 + 8 * 5


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            dict(parts=['bacbone']),
            "RetinaNet has no part 'bacbone'; it has .*backbone, neck, bbox_head",
        ),
        (dict(parts=['backbone', 'neck']), "part 'neck' of RetinaNet holds no activation"),
        (dict(parts='backbone'), "parts must be a list of names .* got 'backbone'"),
        (dict(parts=[]), r'parts must be a list of names .* got \[\]'),
        (dict(parts=['backbone', 'backbone.layer1']), "parts name 'backbone.layer1' twice"),
        (dict(parts=['neck', 'neck']), "parts name 'neck' twice"),
        (dict(act_cfg=dict(type='ReLU')), "must be the config of a HoyerSpike.*'ReLU'"),
        (dict(act_cfg=dict(type='HoyerSpyke')), "must be the config of a HoyerSpike.*'HoyerSpyke'"),
        (dict(act_cfg='HoyerSpike'), 'must be the config of a HoyerSpike.*got HoyerSpike'),
        (dict(act_cfg=dict(type='HoyerSpike', num_features=4)), 'leave out num_features'),
        (dict(detector='retinanet_r18'), "detector must be the config .* got 'retinanet_r18'"),
        (dict(detector=dict(depth=18)), r"detector must be the config .* got \{'depth': 18\}"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    cfg = {'type': 'SpikingDetector', 'detector': small_config('retinanet'), **options}
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)


def test_reentrant_checkpointing_of_a_block_is_refused():
    cfg = small_config('retinanet')
    cfg.backbone.with_cp = True
    with pytest.raises(ValueError, match='backbone.layer1.0.relu: with_cp=True .* with_cp=False'):
        MODELS.build(dict(type='SpikingDetector', detector=cfg))
