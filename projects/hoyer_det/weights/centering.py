"""Starts a network with real-valued shortcuts from potentials that are centred, before it is trained."""

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..backbones.blocks import SecondForward
from ..backbones.shortcut import ShortcutConvBlock, Stream
from ..spiking import HoyerSpike
from .first_batches import first_batches, kept_generators, merge, restart_averages, run
from .from_ann import modules_from_ann


@HOOKS.register_module()
class CenterPotentialsHook(Hook):
    r"""Before the first iteration, centres the potentials of blocks with shortcuts that are untrained.

    Along a stream of potentials the mean rises with every max pooling and the deviation with every block,
    so that the deepest neurons of a random network nearly all fire and get no gradient. So some training
    images run through the network once, and each :class:`~hoyer_det.backbones.shortcut.ShortcutConvBlock`
    is set before its output goes on: with the mean :math:`m_c` of each channel's potential and the
    deviation :math:`\sigma = \sqrt{\mathrm{mean}_c\,\mathrm{var}_c}`,

    .. math:: b_c \leftarrow b_c + \sigma b_c - m_c, \qquad v \leftarrow \sigma v,

    where :math:`b` is the bias of the norm, drawn as ``bias_spread`` says, and :math:`v` the clip
    threshold. Then channel :math:`c` has the mean :math:`\sigma b_c`, as in a network without
    shortcuts, where :math:`\sigma = 1`. Weights that depend on data at the start are due to Krähenbühl
    et al. (arXiv 1511.06856); the rule is ours.

    Left alone are blocks that were trained (``load_from``, a ``Pretrained`` backbone) or are frozen, and
    the whole network where a part comes from ReLU weights (``FromANN``). Nothing happens in a run that is
    resumed.

    Args:
        batches: Number of training batches to look at.

    Raises:
        ValueError: If it is below 1.
    """

    priority = 'HIGH'  # before MMDetection's MeanTeacherHook copies the student

    def __init__(self, batches: int = 4) -> None:
        if batches < 1:
            raise ValueError(f'CenterPotentialsHook: batches={batches} must be at least 1')
        self.batches = batches

    def before_train(self, runner: Runner) -> None:
        """Centre."""
        if runner.iter > 0:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if any(modules_from_ann(model)) or not _fresh_blocks(model.train()):
            return
        batches = first_batches(runner, self.batches)
        with kept_generators():
            centred = center_potentials(model, batches, self.batches)
        restart_averages(runner, model)
        runner.logger.info(f'Potentials of {centred} untrained blocks with shortcuts centred')


def center_potentials(model: nn.Module, dataloader: Iterable[Any], batches: int = 4) -> int:
    """Do the work of :class:`CenterPotentialsHook`.

    Args:
        model: Detector or classifier; changed, and in training mode after.
        dataloader: Training batches.
        batches: As for the hook.

    Returns:
        The number of blocks that were centred.
    """
    blocks = _fresh_blocks(model.train())
    if not blocks:
        return 0
    waiting = set(blocks)

    def center(block: ShortcutConvBlock, inputs: tuple[Any, ...], output: Stream) -> Stream:
        if block not in waiting:  # runs again, as on the unlabelled images of semi-supervised data
            return output
        waiting.remove(block)
        return _center(block, output)

    # Nothing is trained: running averages stay, and observers see no spikes.
    with torch.no_grad(), SecondForward(model), ExitStack() as hooks:
        for block in blocks:
            hooks.enter_context(block.register_forward_hook(center))
        run(model, merge(list(islice(dataloader, batches))))
    return len(blocks)


def _fresh_blocks(model: nn.Module) -> list[ShortcutConvBlock]:
    return [m for m in model.modules() if isinstance(m, ShortcutConvBlock) and _is_fresh(m)]


def _is_fresh(block: ShortcutConvBlock) -> bool:
    """Tell whether a block has a norm and a neuron that will be trained and never were."""
    norm = getattr(block, 'norm', None)
    if not isinstance(block.act, HoyerSpike) or norm is None or norm.bias is None:
        return False
    # Of a ReLU twin's weights the norm alone can tell that they were trained.
    counts = [block.act.running_weight, getattr(norm, 'num_batches_tracked', None)]
    trained = any(bool((count > 0).any()) for count in counts if count is not None)
    if norm.weight is not None:  # GroupNorm counts nothing
        trained |= bool((norm.weight != 1).any())
    return block.act.training and norm.bias.requires_grad and not trained


def _center(block: ShortcutConvBlock, output: Stream) -> Stream:
    """Set a block by its potential (N, C, H, W); return what it hands on from now on."""
    potential = output[1]
    moments = torch.stack([potential.mean((0, 2, 3)), potential.square().mean((0, 2, 3))])
    all_reduce(moments, 'mean')  # each process sees other images
    mean, square = moments
    deviation = (square - mean.square()).clamp(min=0).mean().sqrt()
    if not (deviation > 0 and torch.isfinite(deviation)):
        return output
    shift = deviation * block.norm.bias - mean
    block.norm.bias += shift
    block.act.threshold *= deviation
    potential = potential + shift.view(-1, 1, 1)
    return block.act(potential), potential
