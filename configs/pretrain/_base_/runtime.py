# Runner settings of the classifiers.
_base_ = '../../_base_/default_runtime.py'
default_hooks = dict(
    _delete_=True,
    timer=dict(type='IterTimerHook'),
    # Metrics over iterations, as losses are.
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=2,
        save_best='top1',
        backend_args=dict(backend='atomic_local'),
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [hook for hook in _base_.custom_hooks if hook['type'] != 'NumClassCheckHook']
visualizer = dict(type='Visualizer')
val_evaluator = dict(type='TopKAccuracy')
test_evaluator = val_evaluator
