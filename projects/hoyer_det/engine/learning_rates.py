"""Finds spiking parts that begin at random weights and learn more slowly than the rest, or not at all."""

from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from ..spiking import spiking_layers
from ..weights.reading import initialisations, reads_file


def warn_of_slow_parts(runner: Runner, model: nn.Module) -> None:
    """Log a line for each part that is trained as if it had pre-trained weights, which it has not.

    DETR's descendants train their backbone at a tenth of the rate, and many configs freeze its first
    stages. A config that replaces the backbone by a spiking one keeps that without an error.

    Args:
        runner: Runner whose optimizer is built. Weights that it loads itself, or resumes from, count as
            pre-trained.
        model: Its detector, without the wrapper of a distributed run.
    """
    if not isinstance(runner.optim_wrapper, OptimWrapper) or runner._load_from or runner._resume:
        return
    optimizer = runner.optim_wrapper.optimizer
    rates = {
        id(parameter): group.get('initial_lr', group['lr'])
        for group in optimizer.param_groups
        for parameter in group['params']
        if parameter.dim() > 1  # biases and norms may have rates of their own (bias_lr_mult)
    }
    if not rates:
        return
    rate = max(rates.values())  # not the optimizer's default, which --auto-scale-lr leaves as it is
    for name, part in model.named_children():
        trained = [
            rates[id(parameter)]
            for parameter in part.parameters()
            if parameter.requires_grad and id(parameter) in rates
        ]
        from_file = any(reads_file(init) for _, init in initialisations(part))
        if not trained or not spiking_layers(part) or from_file:
            continue
        convs = [m for m in part.modules() if isinstance(m, nn.Conv2d)]
        frozen = sum(not conv.weight.requires_grad for conv in convs)
        if frozen:
            runner.logger.warning(
                f'{name}: has random weights, and {frozen} of its {len(convs)} convolutions are frozen; set '
                'frozen_stages=-1 and norm_eval=False, or start from weights (docs/pretrained_weights.md)'
            )
        if max(trained) < rate:
            share = max(trained) / rate
            runner.logger.warning(
                f'{name}: has random weights and learns at {share:g} of the learning rate, as pre-trained '
                f'ones should; set optim_wrapper.paramwise_cfg.custom_keys.{name}.lr_mult=1.0, or start from '
                'weights (docs/pretrained_weights.md)'
            )
