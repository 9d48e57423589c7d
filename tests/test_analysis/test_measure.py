"""Which images a measurement sees, and how two-stage detectors are counted."""

import copy

import pytest
import torch
from conftest import REPOSITORY
from hoyer_det.analysis import build_dataset, measure
from hoyer_det.analysis.measure import spread_images
from hoyer_det.analysis.provenance import validated_map
from hoyer_det.config import load_config
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope

CONFIG = REPOSITORY / 'configs' / 'hoyer_ssd_vocformat.py'


class Numbers:
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return dict(inputs=index)


def test_images_are_spread_over_the_data_set():
    assert [batch['inputs'] for batch in spread_images(Numbers(), 4)] == [[0], [2], [5], [7]]
    assert [batch['inputs'] for batch in spread_images(Numbers(), 99)] == [[i] for i in range(10)]


@pytest.mark.parametrize('wrapped', [None, 'RepeatDataset', 'ConcatDataset', 'validation'])
def test_training_images_come_through_the_pipeline_of_evaluation(voc_folder, wrapped):
    cfg = load_config(CONFIG, dict(data_root=str(voc_folder)))
    plain = cfg.train_dataloader.dataset
    if wrapped == 'RepeatDataset':
        cfg.train_dataloader.dataset = dict(type=wrapped, times=3, dataset=plain)
    elif wrapped == 'ConcatDataset':
        cfg.train_dataloader.dataset = dict(type=wrapped, datasets=[plain, copy.deepcopy(plain)])
    elif wrapped == 'validation':
        parts = [cfg.val_dataloader.dataset]
        cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    dataset = build_dataset(cfg, 'train')
    assert len(dataset) == (8 if wrapped == 'ConcatDataset' else 4)
    first, again = dataset[1], dataset[1]
    assert first['inputs'].shape == (3, 160, 160)
    assert torch.equal(first['inputs'], again['inputs'])  # nothing is cropped or flipped at random
    assert first['data_samples'].img_path.endswith('image1.jpg')


def test_a_split_that_is_not_there(voc_folder):
    cfg = load_config(CONFIG, dict(data_root=str(voc_folder)))
    cfg.test_dataloader = None
    with pytest.raises(ValueError, match='has no test_dataloader'):
        build_dataset(cfg, 'test')


def test_a_validation_without_a_pipeline_is_named(voc_folder):
    cfg = load_config(CONFIG, dict(data_root=str(voc_folder)))
    del cfg.val_dataloader.dataset.pipeline
    with pytest.raises(ValueError, match=r'vocformat\.py: val_dataloader\.dataset: [^\n]*pipeline'):
        build_dataset(cfg, 'train')


class RandomImages:
    """Images of 128 x 128 pixels as MMDetection's pipelines hand them out."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        shape = (128, 128)
        metainfo = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0))
        generator = torch.Generator().manual_seed(index)
        inputs = torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8)
        return dict(inputs=inputs, data_samples=DetDataSample(metainfo=metainfo))


def test_the_second_stage_is_counted_for_each_image_not_for_each_proposal():
    init_default_scope('mmdet')
    cfg = Config(
        dict(
            model=dict(
                type='FasterRCNN',
                data_preprocessor=dict(
                    type='DetDataPreprocessor', mean=[127.5] * 3, std=[64.0] * 3
                ),
                backbone=dict(
                    type='HoyerVGG', depth=11, width=1 / 16, act_cfg=dict(type='HoyerSpike')
                ),
                neck=dict(type='FPN', in_channels=[8, 16, 32, 32], out_channels=8, num_outs=5),
                rpn_head=dict(
                    type='RPNHead',
                    in_channels=8,
                    feat_channels=8,
                    anchor_generator=dict(
                        type='AnchorGenerator', scales=[2], ratios=[1.0], strides=[4, 8, 16, 32, 64]
                    ),
                    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
                ),
                roi_head=dict(
                    type='StandardRoIHead',
                    bbox_roi_extractor=dict(
                        type='SingleRoIExtractor',
                        roi_layer=dict(type='RoIAlign', output_size=2, sampling_ratio=0),
                        out_channels=8,
                        featmap_strides=[4, 8, 16, 32],
                    ),
                    bbox_head=dict(
                        type='Shared2FCBBoxHead',
                        in_channels=8,
                        fc_out_channels=16,
                        roi_feat_size=2,
                        num_classes=3,
                        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
                        reg_class_agnostic=False,
                    ),
                ),
                train_cfg=None,
                test_cfg=dict(
                    rpn=dict(nms_pre=50, max_per_img=7, nms=dict(type='nms', iou_threshold=1.0)),
                    rcnn=dict(
                        score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5
                    ),
                ),
            )
        )
    )
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    measured = measure(model, RandomImages(), 5)
    layers = {layer.name: layer for layer in measured.layers}
    assert measured.images == 2 and {layer.images for layer in measured.layers} == {2}
    fully = layers['roi_head.bbox_head.shared_fcs.0']
    # 7 proposals of 8 x 2 x 2 features, 16 outputs, two images.
    assert fully.dense == 2 * 7 * 32 * 16 and fully.weights == 32 * 16 + 16
    assert len(fully.densities) == 2 and fully.input_kind == 'real'
    # The heads of the five levels are one layer that runs five times an image.
    assert layers['rpn_head.rpn_conv'].calls == 10 and layers['rpn_head.rpn_cls'].weights == 9
    assert layers['backbone.stages.1.0.conv'].input_kind == 'binary'
    assert layers['neck:add'].additions == 2 * 8 * (8 * 8 + 16 * 16 + 32 * 32)
    assert not measured.not_counted and not measured.not_run
    assert (
        list(measured.pictures) == list(measured.neurons['backbone.stages.0.0.act'].maps) == [0, 1]
    )
    assert measured.pictures[1].pixels.shape == (128, 128, 3)
    assert measured.pictures[1].map_shape == (128, 128)
    assert measured.parameters == sum(p.numel() for p in model.parameters())


def test_map_of_a_checkpoint_from_the_log_beside_it(tmp_path):
    log = tmp_path / '20260102_030405' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(
        '{"voc/mAP": 0.25, "step": 6}\n{"loss": 1, "step": 7}\n{"voc/mAP": 0.5, "step": 60}\n{"l'
    )
    cfg = Config(dict(train_cfg=dict(by_epoch=True)))
    meta = dict(experiment_name='my_net_20260102_030405', epoch=6)
    assert validated_map(cfg, str(tmp_path / 'epoch_6.pth'), meta).startswith('0.250 (voc/mAP')
    by_iteration = dict(meta, epoch=12, iter=60)
    assert validated_map(cfg, 'x', meta) == 'not known'
    # The step of another iteration that is the number of this epoch.
    log.write_text(log.read_text() + '\n{"voc/mAP": 0.75, "step": 12}\n')
    path = str(tmp_path / 'epoch_12.pth')
    assert validated_map(cfg, path, by_iteration).startswith('0.500 (voc/mAP on val after epoch 12')
    for other in (dict(meta, epoch=7), dict(meta, experiment_name='my_net_1_2'), {}):
        assert validated_map(cfg, str(tmp_path / 'epoch_6.pth'), other) == 'not known'


def test_lif_network_adds_in_every_time_step():
    found = []
    for twin in (None, 'lif'):
        cfg = load_config(REPOSITORY / 'configs' / 'hoyer_ssd_shapes.py', twin=twin, complete=False)
        init_default_scope('mmdet')
        torch.manual_seed(0)
        found.append(measure(MODELS.build(cfg.model).eval(), RandomImages(), 2))
    spiking, lif = found
    assert lif.spiking and lif.leaky and not lif.neurons and not spiking.leaky
    once = {layer.name: layer for layer in spiking.layers}
    for layer in lif.layers:
        before = once[layer.name.replace('.module.', '.')]
        steps = 1 if layer.name.startswith('bbox_head') else 4
        assert layer.dense == steps * before.dense and layer.weights == before.weights
        assert steps == 1 or layer.input_kind == before.input_kind, layer.name
        assert layer.written_spikes == (0 if steps == 1 else 4 * before.written_spikes)
        assert layer.potentials == (0 if steps == 1 else 3 * before.written_spikes)
