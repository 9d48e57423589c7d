# What a spiking detector adds to one of MMDetection's configs: a base beside it. Most files use these
# two under the names of MMEngine; some must add them to what their base has.
custom_imports = dict(imports=['hoyer_det'], allow_failed_imports=False)
spiking_hooks = [
    dict(type='HoyerRegularizerHook', weight=1e-9),
    dict(type='SpikeRateHook'),
    dict(type='CheckFiniteHook'),
    dict(type='NeuronSettingsHook'),
    dict(type='SharedNeuronHook'),
    dict(type='SyncAllBuffersHook'),
]
# Weight decay would pull the clip thresholds to 0.
spiking_optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(threshold=dict(decay_mult=0.0))))
