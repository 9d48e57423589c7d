# RetinaNet on a spiking ResNet-18 (RetinaNet: arXiv 1708.02002; neuron: arXiv 2212.10170). The head's
# convolutions are shared by the levels; its norms and neurons are not, since each level has potentials
# of its own size. RetinaSepBNHead takes no act_cfg, so SpikingDetector puts the neurons in.
act_cfg = dict(type='HoyerSpike')
model = dict(
    type='SpikingDetector',
    parts=['bbox_head'],
    act_cfg=act_cfg,
    detector=dict(
        type='RetinaNet',
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_size_divisor=32,
        ),
        backbone=dict(
            type='HoyerResNet',
            depth=18,
            out_indices=(1, 2, 3),
            act_cfg=act_cfg,
            bias_spread=1.0,
        ),
        neck=dict(
            type='HoyerFPN',
            in_channels=[128, 256, 512],
            out_channels=256,
            add_extra_convs='on_output',
            num_outs=5,
            act_cfg=act_cfg,
            bias_spread=1.0,
        ),
        bbox_head=dict(
            type='RetinaSepBNHead',
            num_classes=80,
            num_ins=5,
            in_channels=256,
            stacked_convs=4,
            feat_channels=256,
            norm_cfg=dict(type='BN'),
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=3,
                ratios=[0.5, 1.0, 2.0],
                strides=[8, 16, 32, 64, 128],
            ),
            bbox_coder=dict(
                type='DeltaXYWHBBoxCoder',
                target_means=[0.0, 0.0, 0.0, 0.0],
                target_stds=[1.0, 1.0, 1.0, 1.0],
            ),
            loss_cls=dict(
                type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0
            ),
            loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        ),
        train_cfg=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.4,
                min_pos_iou=0,
                ignore_iof_thr=-1,
            ),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        test_cfg=dict(
            nms_pre=1000,
            min_bbox_size=0,
            score_thr=0.05,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=100,
        ),
    ),
)
