"""Wrong inputs: config files, and settings that a command line overrides."""

from pathlib import Path

from wrong_inputs import Case


def option(setting: str, where: str, what: str, **more: bool) -> Case:
    """A setting given to a training on the command line."""
    return Case(
        setting, f'train voc.py --work-dir out --cfg-options {setting}', where, what, **more
    )


def config(name: str, text: str, where: str, what: str, command: str = 'train') -> Case:
    """Lines added to the config file."""

    def spoil(folder: Path) -> None:
        file = folder / 'voc.py'
        file.write_text(file.read_text() + text + '\n')

    rest = ' work/epoch_2.pth' if command == 'test' else ''
    return Case(f'{command}: {name}', f'{command} voc.py{rest} --work-dir out', where, what, spoil)


def own(name: str, what: str, text: str, command: str = 'train own.py') -> Case:
    """A config file of its own, the second word of the command."""
    file = command.split()[1]
    return Case(name, command, file, what, lambda folder: (folder / file).write_text(text))


LOOPS = [
    option('train_cfg.max_epochs=0', 'train_cfg.max_epochs', 'at least 1'),
    option('train_cfg.max_epochs=-3', 'train_cfg.max_epochs', 'at least 1'),
    option('train_cfg.max_epochs=2.5', 'train_cfg.max_epochs', 'whole number'),
    option('train_cfg.max_epochs=ten', 'train_cfg.max_epochs', "'ten'"),
    option('train_cfg.max_epochs=None', 'train_cfg.max_epochs', 'None'),
    option('train_cfg.max_epoch=3', 'train_cfg.max_epoch', 'is max_epochs meant'),
    option('train_cfg.val_interval=0', 'train_cfg.val_interval', 'at least 1'),
    option('train_cfg.val_interval=-1', 'train_cfg.val_interval', 'at least 1'),
    option('train_cfg.val_interval=often', 'train_cfg.val_interval', "'often'"),
    option('train_cfg.val_begin=soon', 'train_cfg.val_begin', "'soon'"),
    option('train_cfg.type=NoLoop', 'train_cfg', 'NoLoop'),
    option('train_cfg=None', 'train_cfg', 'hoyer-det train'),
    option('val_cfg=None', 'val_cfg', 'val_dataloader'),
    option('train_cfg.epochs=3', 'train_cfg', 'epochs'),
    config(
        'iterations without number',
        'train_cfg = dict(_delete_=True, by_epoch=False)',
        'train_cfg',
        'max_iters',
    ),
    config(
        'no iterations',
        "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=0)",
        'train_cfg.max_iters',
        'at least 1',
    ),
]
OPTIMIZERS = [
    option('optim_wrapper.optimizer.lr=fast', 'optim_wrapper.optimizer.lr', "'fast'"),
    option('optim_wrapper.optimizer.lr=nan', 'optim_wrapper.optimizer.lr', 'nan'),
    option('optim_wrapper.optimizer.lr=1e999', 'optim_wrapper.optimizer.lr', 'inf'),
    option('optim_wrapper.optimizer.lr=-0.1', 'optim_wrapper.optimizer.lr', '-0.1'),
    option('optim_wrapper.optimizer.lr=0', 'optim_wrapper.optimizer.lr', 'above 0'),
    option('optim_wrapper.optimizer.lr=None', 'optim_wrapper.optimizer.lr', 'None'),
    option('optim_wrapper.optimizer.lr=1e-2x', 'optim_wrapper.optimizer.lr', "'1e-2x'"),
    option('optim_wrapper.optimizer.weight_decay=-1', 'weight_decay', '-1'),
    option('optim_wrapper.optimizer.weight_decay=much', 'weight_decay', "'much'"),
    option('optim_wrapper.optimizer.betas=[2,3]', 'optim_wrapper.optimizer', 'beta'),
    option('optim_wrapper.optimizer.betas=0.9', 'optim_wrapper.optimizer', 'float'),
    option('optim_wrapper.optimizer.type=Adamw', 'optim_wrapper.optimizer', "is 'AdamW' meant"),
    option('optim_wrapper.optimizer.lrr=1', 'optim_wrapper.optimizer', "argument 'lrr'"),
    option('optim_wrapper.optimizer.nesterov=True', 'optim_wrapper.optimizer', 'nesterov'),
    option('optim_wrapper.type=NoWrapper', 'optim_wrapper', 'NoWrapper'),
    option('optim_wrapper.clip_grad.max_norm=tight', 'clip_grad.max_norm', "'tight'"),
    option('optim_wrapper.clip_grad.max_norm=0', 'clip_grad.max_norm', 'above 0'),
    option('optim_wrapper.clip_grad.max_norm=nan', 'clip_grad.max_norm', 'nan'),
    option('optim_wrapper.accumulative_counts=0', 'accumulative_counts', 'at least 1'),
    option('optim_wrapper=None', 'optim_wrapper', 'hoyer-det train'),
    config(
        'optimizer without type',
        'optim_wrapper = dict(optimizer=dict(_delete_=True, lr=0.1))',
        'optim_wrapper.optimizer',
        'type',
    ),
]
SCHEDULERS = [
    option('param_scheduler.0.type=NoLR', 'param_scheduler.0', 'NoLR'),
    option('param_scheduler.1.T_max=0', 'param_scheduler.1.T_max', 'at least 1'),
    option('param_scheduler.1.T_max=long', 'param_scheduler.1.T_max', "'long'"),
    option('param_scheduler.1.end=late', 'param_scheduler.1.end', "'late'"),
    option('param_scheduler.0.begin=99', 'param_scheduler.0', 'begin'),
    option('param_scheduler.0.start_factor=-1', 'param_scheduler.0', 'factor'),
    option('param_scheduler.0.start_facto=1', 'start_facto', 'is start_factor meant'),
    option('param_scheduler.1.eta_min=0.1', 'param_scheduler.1', 'eta_min'),
    option('param_scheduler=fast', 'param_scheduler', "'fast'"),
    config(
        'multi-step without steps',
        "param_scheduler = [dict(type='MultiStepLR')]",
        'param_scheduler.0',
        'milestones',
    ),
    config(
        'steps in words',
        "param_scheduler = [dict(type='MultiStepLR', milestones=['a'])]",
        'param_scheduler.0',
        'milestones',
    ),
    config(
        'scheduler without type', 'param_scheduler = [dict(gamma=0.1)]', 'param_scheduler.0', 'type'
    ),
    config(
        'poly without power',
        "param_scheduler = dict(type='PolyLR', power='x')",
        'param_scheduler',
        'power',
    ),
]
LOADERS = [
    option('train_dataloader.batch_size=0', 'train_dataloader.batch_size', 'at least 1'),
    option('train_dataloader.batch_size=-2', 'train_dataloader.batch_size', 'at least 1'),
    option('train_dataloader.batch_size=all', 'train_dataloader.batch_size', "'all'"),
    option('train_dataloader.batch_size=5', 'train_dataloader.batch_size=5', '4 training images'),
    option('train_dataloader.num_workers=-1', 'train_dataloader.num_workers', 'at least 0'),
    option('val_dataloader.num_workers=two', 'val_dataloader.num_workers', "'two'"),
    option('val_dataloader.batch_size=0', 'val_dataloader.batch_size', 'at least 1'),
    option('train_dataloader.persistent_workers=True', 'train_dataloader', 'persistent_workers'),
    option('train_dataloader.sampler.type=NoSampler', 'train_dataloader', 'NoSampler'),
    option('train_dataloader.sampler.type=InfiniteSampler', 'sampler.type', 'no end'),
    option('train_dataloader.dataset.type=NoData', 'train_dataloader', 'NoData'),
    option('train_dataloader.dataset.pipeline.0.type=NoStep', 'train_dataloader', 'NoStep'),
    option('train_dataloader.dataset.pipeline.3.scale=big', 'traceback_0.txt', 'cv2', starts=True),
    option('train_dataloader.dataset.ann_file=lost.txt', 'lost.txt', 'missing'),
    option('train_dataloader=None', 'train_dataloader', 'hoyer-det train'),
    config(
        'no evaluation data',
        'test_dataloader = None\ntest_cfg = None\ntest_evaluator = None',
        'test_dataloader',
        'hoyer-det test',
        'test',
    ),
    config('no metric', 'test_evaluator = None', 'test_evaluator', 'hoyer-det test', 'test'),
    config(
        'unknown metric',
        "test_evaluator = dict(_delete_=True, type='NoMetric')",
        'test_evaluator',
        'NoMetric',
        'test',
    ),
]
HOOKS = [
    option(
        'default_hooks.checkpoint.interval=0', 'default_hooks.checkpoint.interval', 'at least 1'
    ),
    option(
        'default_hooks.checkpoint.interval=often', 'default_hooks.checkpoint.interval', "'often'"
    ),
    option('default_hooks.checkpoint.out_dir=there', 'default_hooks.checkpoint.out_dir', "'there'"),
    option('default_hooks.checkpoint.by_epoch=False', 'checkpoint.by_epoch', 'IterBasedTrainLoop'),
    option('default_hooks.checkpoint.intervall=2', 'intervall', 'is interval meant'),
    option('default_hooks.logger.interval=0', 'default_hooks.logger.interval', 'at least 1'),
    option('default_hooks.logger.type=NoHook', 'default_hooks.logger', 'NoHook'),
    option('custom_hooks.0.type=NoHook', 'custom_hooks.0', 'NoHook'),
    option('custom_hooks.1.weight=heavy', 'custom_hooks.1', 'weight'),
    option('custom_hooks.1.weight=-1', 'custom_hooks.1', 'weight'),
    option('custom_hooks.4.interval=0', 'custom_hooks.4', 'interval'),
    option('custom_hooks.8.momentum=7', 'traceback_0.txt', 'momentum must be', starts=True),
    option('custom_hooks.1.wieght=1', 'wieght', 'is weight meant'),
    option('visualizer.type=NoVisualizer', 'visualizer', 'NoVisualizer'),
    option('randomness.seed=lucky', 'randomness.seed', "'lucky'"),
    option('randomness.seed=-1', 'randomness.seed', 'at least 0'),
    option('randomness.seed=1.5', 'randomness.seed', 'whole number'),
    option('log_level=LOUD', 'log_level', 'LOUD'),
    option('runner_type=NoRunner', 'runner_type', 'NoRunner'),
]
MODELS = [
    option('model.type=NoDetector', 'model', 'NoDetector'),
    option('model.backbone.type=HoyerVVG', 'model', "is 'HoyerVGG' meant"),
    config(
        'argument misspelt',
        'model = dict(backbone=dict(bias_spred=1.0))',
        'HoyerVGG',
        "is 'bias_spread' meant",
    ),
    option('model.neck.shortcut=Tru', 'HoyerSSDNeck', "got 'Tru'"),
    option('model.backbone.depth=12', 'depth', 'must be one of'),
    option('model.backbone.width=-1', 'width', '-1'),
    option('model.backbone.width=0', 'width', '0'),
    option('model.backbone.widht=0.5', 'model.backbone.widht', 'is width meant'),
    option('model.backbone.act_cfg.extremum=mean', 'extremum', 'mean'),
    option('model.backbone.act_cfg.type=NoSpike', 'NoSpike', 'registry'),
    option('model.backbone.bananas=3', 'model', 'bananas'),
    option('model.backbone.out_indices=[9]', 'out_indices', '9'),
    option('model.backbone.out_indices=3', 'out_indices', 'got 3'),
    option('model.backbone.act_cfg=ReLU', 'act_cfg', "got 'ReLU'"),
    option('model.backbone.bias_spread=-1', 'bias_spread', 'at least 0'),
    option('model.bbox_head.num_classes=7', 'model.bbox_head.num_classes=7', 'which has 3'),
    option('model.bbox_head.anchor_generator.ratios=[[2],[2]]', 'model', 'assert'),
    option('custom_hooks.17.weight=1', 'custom_hooks.17', 'no entry'),
    option('model.neck.in_channels=[1,2]', 'model', 'channels'),
    option('model.backbone.width=0.3', 'neck.in_channels', 'hands in [154, 307]'),
    option('model.bbox_head=None', 'voc.py: model', 'NoneType'),
    option('model=None', 'model', 'hoyer-det train'),
    option('modle.type=X', 'modle', 'is model meant'),
    option('max_epochs=3', 'max_epochs', 'nothing reads'),
    option('noequals', 'noequals', 'key=value'),
]
CONFIG_FILES = [
    Case('no such config', 'train lost.py', 'lost.py', 'no such config'),
    Case(
        'shipped config misspelt',
        'train hoyer_ssd_vocformt',
        'hoyer_ssd_vocformt',
        'hoyer_ssd_vocformat',
    ),
    own('config with a syntax error', 'line 1', 'model = dict(\n'),
    own('config with an undefined name', 'nothing_here', 'model = nothing_here\n'),
    own('config with a missing base', 'gone.py', "_base_ = 'gone.py'\n"),
    own('config with an unknown package', 'package', "_base_ = 'nopackage::x.py'\n"),
    own(
        'config with an unknown import',
        'no_module_of_this_name',
        "custom_imports = dict(imports=['no_module_of_this_name'], allow_failed_imports=False)\n",
    ),
    own('config that divides by zero', 'division', 'lr = 1 / 0\n', 'test own.py work/epoch_2.pth'),
    own('empty config', 'model', ''),
    Case('config is a folder', 'train voc', 'voc', 'no such config'),
    Case('config is an image', 'train voc/JPEGImages/image0.jpg', 'image0.jpg', 'config'),
    own('config of another kind', 'list', '- 1\n- 2\n', 'analyze own.yaml work/epoch_2.pth'),
    own('broken json config', 'line 1', '{"model": ', 'train own.json'),
    own('config is empty json', 'model', '{}', 'export own.json work/epoch_2.pth a.onnx'),
    config(
        'deletes what is not there', 'model = dict(_delete_=True)', 'model={}', 'needs its settings'
    ),
    config(
        'value that no file holds',
        'model = dict(test_cfg=dict(more=object()))',
        'more=<object',
        'cannot be written',
    ),
    config('key misspelt in the file', 'modle = dict()', 'modle', 'is model meant'),
]
SETTINGS = [*LOOPS, *OPTIMIZERS, *SCHEDULERS, *LOADERS, *HOOKS, *MODELS, *CONFIG_FILES]
