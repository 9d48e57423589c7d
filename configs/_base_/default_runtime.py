# Runner settings shared by every experiment.
default_scope = 'mmdet'
custom_imports = dict(imports=['hoyer_det'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    # Metrics over iterations, as losses are.
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=2,
        backend_args=dict(backend='atomic_local'),  # a run that is killed leaves no half file
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetectionPicturesHook', num_images=8),
)
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='HoyerRegularizerHook', weight=1e-8),
    dict(type='SpikeRateHook'),
    dict(type='SpikeStatisticsHook'),
    dict(type='CheckFiniteHook'),
    dict(type='NeuronSettingsHook'),
    dict(type='SharedNeuronHook'),
    dict(type='SyncAllBuffersHook'),  # running averages differ between processes
]
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
