# A few thousand iterations of AdamW with cosine decay: minutes to an hour on a CPU.
# One-step networks learn more slowly than their ReLU twins: give them the epochs.
_base_ = './adamw_24e.py'
train_cfg = dict(max_epochs=72, val_interval=12)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=50),
    dict(_base_.param_scheduler[1], end=72, T_max=72),
]
auto_scale_lr = dict(base_batch_size=8)
