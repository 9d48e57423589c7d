"""The detector families that MMDetection ships, and which config of each is tried."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    """One folder of MMDetection's configs.

    Attributes:
        name: Name of the folder.
        kind: What sort of detector it holds.
        config: File that is tried, '' if there is nothing to try.
        reason: Why there is nothing to try.
        same_as: Family of which the folder holds further recipes, with the same model.
        needs: Annotations beside boxes: ``'masks'``, ``'semantic'`` (a class of each pixel),
            ``'proposals'``, ``'video'`` (two frames), ``'unlabelled'`` (images without boxes).
        changes: Settings of the model that differ from the shipped ones, by dotted key.
        note: What a user of the family should know.
        package: Distribution that it needs beyond the requirements of MMDetection.
        fails: What the reason says if it does not work with the tested set of packages.
        fast: Whether the default run of the tests tries it.
    """

    name: str
    kind: str = ''
    config: str = ''
    reason: str = ''
    same_as: str = ''
    needs: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)
    note: str = ''
    package: str = ''
    fails: str = ''
    fast: bool = False


ANCHORS = 'one stage, anchor-based'
FREE = 'one stage, anchor-free'
TWO = 'two stages'
QUERIES = 'queries'
TRANSFORMER = 'transformer'
MASKS = ('masks',)

ONLY = 'its configs have {} only'

FAMILIES: tuple[Family, ...] = (
    Family('albu_example', same_as='mask_rcnn'),
    Family('atss', ANCHORS, 'atss_r18_fpn_8xb8-amp-lsj-200e_coco.py', fast=True),
    Family('autoassign', FREE, 'autoassign_r50-caffe_fpn_1x_coco.py'),
    Family(
        'boxinst',
        f'{FREE}, masks',
        'boxinst_r50_fpn_ms-90k_coco.py',
        needs=MASKS,
        package='scikit-image',
    ),
    Family('bytetrack', 'video', reason=ONLY.format('CSPDarknet')),
    Family('carafe', TWO, 'faster-rcnn_r50_fpn-carafe_1x_coco.py', fails='carafe_forward'),
    Family('cascade_rcnn', TWO, 'cascade-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py'),
    Family('cascade_rpn', TWO, 'cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py'),
    Family('centernet', FREE, 'centernet_r18_8xb16-crop512-140e_coco.py', fast=True),
    Family('centripetalnet', FREE, reason=ONLY.format('HourglassNet')),
    Family('cityscapes', same_as='faster_rcnn'),
    Family(
        'condinst', f'{FREE}, masks', 'condinst_r50_fpn_ms-poly-90k_coco_instance.py', needs=MASKS
    ),
    Family('conditional_detr', TRANSFORMER, 'conditional-detr_r50_8xb2-50e_coco.py'),
    Family('convnext', f'{TWO}, masks', reason=ONLY.format('ConvNeXt')),
    Family('cornernet', FREE, reason=ONLY.format('HourglassNet')),
    Family('crowddet', TWO, 'crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py'),
    Family('dab_detr', TRANSFORMER, 'dab-detr_r50_8xb2-50e_coco.py'),
    Family('dcn', TWO, 'faster-rcnn_r50_fpn_dpool_1x_coco.py', fails='deform_roi_pool_forward'),
    Family('dcnv2', TWO, 'faster-rcnn_r50_fpn_mdpool_1x_coco.py', fails='deform_roi_pool_forward'),
    Family('ddod', ANCHORS, 'ddod_r50_fpn_1x_coco.py'),
    Family(
        'ddq',
        TRANSFORMER,
        'ddq-detr-4scale_r50_8xb2-12e_coco.py',
        changes={'num_queries': 100},
        note='tried with 100 queries',
    ),
    Family('deepfashion', same_as='mask_rcnn'),
    Family('deepsort', same_as='faster_rcnn'),
    Family('deformable_detr', TRANSFORMER, 'deformable-detr_r50_16xb2-50e_coco.py'),
    Family('detectors', TWO, reason=ONLY.format('DetectoRS_ResNet')),
    Family('detr', TRANSFORMER, 'detr_r18_8xb2-500e_coco.py', fast=True),
    Family(
        'dino',
        TRANSFORMER,
        'dino-4scale_r50_8xb2-12e_coco.py',
        changes={'num_queries': 100},
        note='tried with 100 queries',
    ),
    Family('double_heads', TWO, 'dh-faster-rcnn_r50_fpn_1x_coco.py'),
    Family('dsdl', same_as='faster_rcnn'),
    Family(
        'dyhead',
        ANCHORS,
        'atss_r50_fpn_dyhead_1x_coco.py',
        note="torchvision's deformable convolution wants offsets of its own output's size",
        fails='offset output dims',
    ),
    Family('dynamic_rcnn', TWO, 'dynamic-rcnn_r50_fpn_1x_coco.py'),
    Family('efficientnet', ANCHORS, reason=ONLY.format('EfficientNet')),
    Family('empirical_attention', TWO, 'faster-rcnn_r50-attn0010_fpn_1x_coco.py', fails='plugins'),
    Family('fast_rcnn', TWO, 'fast-rcnn_r50_fpn_1x_coco.py', needs=('proposals',)),
    Family('faster_rcnn', TWO, 'faster-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py', fast=True),
    Family(
        'fcos',
        FREE,
        'fcos_r18_fpn_gn-head-center-normbbox-centeronreg-giou_8xb8-amp-lsj-200e_coco.py',
        fast=True,
    ),
    Family('foveabox', FREE, 'fovea_r50_fpn_gn-head-align_4xb4-2x_coco.py'),
    Family('fpg', TWO, 'faster-rcnn_r50_fpg-chn128_crop640-50e_coco.py'),
    Family('free_anchor', ANCHORS, 'freeanchor_r50_fpn_1x_coco.py'),
    Family('fsaf', FREE, 'fsaf_r50_fpn_1x_coco.py'),
    Family(
        'gcnet',
        f'{TWO}, masks',
        'mask-rcnn_r50-gcb-r16-c3-c5_fpn_1x_coco.py',
        needs=MASKS,
        fails='plugins',
    ),
    Family('gfl', ANCHORS, 'gfl_r50_fpn_1x_coco.py'),
    Family('ghm', ANCHORS, 'retinanet_r50_fpn_ghm-1x_coco.py'),
    Family('glip', TRANSFORMER, reason=ONLY.format('SwinTransformer')),
    Family('gn', f'{TWO}, masks', 'mask-rcnn_r50_fpn_gn-all_2x_coco.py', needs=MASKS),
    Family('gn+ws', TWO, 'faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py'),
    Family('grid_rcnn', TWO, 'grid-rcnn_r50_fpn_gn-head_1x_coco.py'),
    Family('groie', TWO, 'faste-rcnn_r50_fpn_groie_1x_coco.py'),
    Family(
        'grounding_dino',
        TRANSFORMER,
        'grounding_dino_r50_scratch_8xb2_1x_coco.py',
        changes={'encoder.num_cp': 0},  # checkpointing, which needs fairscale
        note='its text encoder is BERT',
        fails='transformers is not installed',
    ),
    Family(
        'guided_anchoring',
        TWO,
        'ga-faster-rcnn_r50_fpn_1x_coco.py',
        note='loss and backward work',
        fails='masked_im2col_forward',
    ),
    Family('hrnet', TWO, reason=ONLY.format('HRNet')),
    Family('htc', f'{TWO}, masks', 'htc_r50_fpn_1x_coco.py', needs=('masks', 'semantic')),
    Family('instaboost', same_as='mask_rcnn'),
    Family(
        'lad',
        ANCHORS,
        'lad_r50-paa-r101_fpn_2xb8_coco_1x.py',
        note='its teacher needs trained weights',
        package='scikit-learn',
        fails='mixture model',
    ),
    Family('ld', ANCHORS, 'ld_r18-gflv1-r101_fpn_1x_coco.py'),
    Family('legacy_1.x', same_as='faster_rcnn'),
    Family('libra_rcnn', TWO, 'libra-faster-rcnn_r50_fpn_1x_coco.py'),
    Family('lvis', same_as='mask_rcnn'),
    Family(
        'mask2former', f'{TRANSFORMER}, masks', 'mask2former_r50_8xb2-lsj-50e_coco.py', needs=MASKS
    ),
    Family(
        'mask2former_vis',
        f'{TRANSFORMER}, video',
        'mask2former_r50_8xb2-8e_youtubevis2019.py',
        needs=('video', 'masks'),
    ),
    Family(
        'mask_rcnn',
        f'{TWO}, masks',
        'mask-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py',
        needs=MASKS,
    ),
    Family(
        'maskformer',
        f'{TRANSFORMER}, panoptic',
        'maskformer_r50_ms-16xb1-75e_coco.py',
        needs=('masks', 'semantic'),
    ),
    Family(
        'masktrack_rcnn',
        f'{TWO}, video',
        'masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019.py',
        needs=('video', 'masks'),
    ),
    Family('misc', reason='holds no detector of its own'),
    Family('mm_grounding_dino', TRANSFORMER, reason=ONLY.format('SwinTransformer')),
    Family('ms_rcnn', f'{TWO}, masks', 'ms-rcnn_r50_fpn_1x_coco.py', needs=MASKS),
    Family(
        'nas_fcos',
        FREE,
        'nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py',
        changes={'backbone.norm_cfg.eps': 1e-5},
        note='tried with a norm of the usual eps, as torch refuses the shipped 0',
    ),
    Family('nas_fpn', ANCHORS, 'retinanet_r50_nasfpn_crop640-50e_coco.py'),
    Family('objects365', same_as='faster_rcnn'),
    Family('ocsort', 'video', reason=ONLY.format('CSPDarknet')),
    Family('openimages', same_as='faster_rcnn'),
    Family('paa', ANCHORS, 'paa_r50_fpn_1x_coco.py', package='scikit-learn'),
    Family('pafpn', TWO, 'faster-rcnn_r50_pafpn_1x_coco.py'),
    Family(
        'panoptic_fpn',
        f'{TWO}, panoptic',
        'panoptic-fpn_r50_fpn_1x_coco.py',
        needs=('masks', 'semantic'),
    ),
    Family('pascal_voc', same_as='faster_rcnn'),
    Family('pisa', TWO, 'faster-rcnn_r50_fpn_pisa_1x_coco.py'),
    Family('point_rend', f'{TWO}, masks', 'point-rend_r50-caffe_fpn_ms-1x_coco.py', needs=MASKS),
    Family('pvt', ANCHORS, reason=ONLY.format('PyramidVisionTransformer')),
    Family(
        'qdtrack',
        f'{TWO}, video',
        'qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py',
        needs=('video',),
    ),
    Family(
        'queryinst',
        f'{QUERIES}, masks',
        'queryinst_r50_fpn_1x_coco.py',
        needs=MASKS,
        changes={'test_cfg.rcnn.max_per_img': 100},  # as many as it has queries
        note='loss and backward work; untrained boxes can be inside out, which its masks do not take',
        fails='step sign',
    ),
    Family('regnet', TWO, reason=ONLY.format('RegNet')),
    Family('reid', 'no detector', reason='tells persons apart, with mmpretrain; detects nothing'),
    Family('reppoints', FREE, 'reppoints-moment_r50_fpn_1x_coco.py'),
    Family('res2net', TWO, reason=ONLY.format('Res2Net')),
    Family('resnest', TWO, reason=ONLY.format('ResNeSt')),
    Family('resnet_strikes_back', same_as='faster_rcnn'),
    Family('retinanet', ANCHORS, 'retinanet_r18_fpn_1x_coco.py'),
    Family('rpn', 'proposals', 'rpn_r50_fpn_1x_coco.py'),
    Family('rtmdet', FREE, reason=ONLY.format('CSPNeXt'), note='see `configs/swap`'),
    Family('sabl', TWO, 'sabl-faster-rcnn_r50_fpn_1x_coco.py'),
    Family(
        'scnet',
        f'{TWO}, masks',
        'scnet_r50_fpn_1x_coco.py',
        needs=('masks', 'semantic'),
        changes={'roi_head.feat_relay_head.in_channels': 128},  # the width of its other heads here
    ),
    Family('scratch', same_as='faster_rcnn'),
    Family(
        'seesaw_loss',
        f'{TWO}, masks',
        'mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py',
        needs=MASKS,
    ),
    Family('selfsup_pretrain', same_as='mask_rcnn'),
    Family('simple_copy_paste', same_as='mask_rcnn'),
    Family(
        'soft_teacher',
        TWO,
        'soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
        needs=('unlabelled',),
    ),
    Family('solo', f'{FREE}, masks', 'solo_r18_fpn_8xb8-lsj-200e_coco.py', needs=MASKS),
    Family('solov2', f'{FREE}, masks', 'solov2-light_r18_fpn_ms-3x_coco.py', needs=MASKS),
    Family('sort', same_as='faster_rcnn'),
    Family('sparse_rcnn', QUERIES, 'sparse-rcnn_r50_fpn_1x_coco.py'),
    Family(
        'ssd',
        ANCHORS,
        reason=ONLY.format('SSDVGG and MobileNetV2'),
        note='see `configs/hoyer_ssd_*.py` and `configs/swap`',
    ),
    Family('strong_baselines', same_as='mask_rcnn'),
    Family('strongsort', 'video', reason=ONLY.format('CSPDarknet')),
    Family('swin', TWO, reason=ONLY.format('SwinTransformer')),
    Family('timm_example', ANCHORS, reason='its backbones come from timm through mmpretrain'),
    Family('tood', ANCHORS, 'tood_r50_fpn_1x_coco.py'),
    Family('tridentnet', TWO, reason=ONLY.format('TridentResNet')),
    Family('v3det', same_as='cascade_rcnn'),
    Family('vfnet', FREE, 'vfnet_r50_fpn_1x_coco.py'),
    Family('wider_face', same_as='retinanet'),
    Family('yolact', f'{ANCHORS}, masks', 'yolact_r50_1xb8-55e_coco.py', needs=MASKS),
    Family(
        'yolo',
        ANCHORS,
        reason=ONLY.format('Darknet and MobileNetV2'),
        note='see `configs/hoyer_yolov3_*.py`',
    ),
    Family('yolof', ANCHORS, 'yolof_r50-c5_8xb8-1x_coco.py'),
    Family('yolox', FREE, reason=ONLY.format('CSPDarknet'), note='see `configs/swap`'),
)
