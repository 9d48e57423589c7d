"""Patches of the pinned OpenMMLab packages; each says which release ends it, and then does nothing."""

import functools
import pickle
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import mmengine
import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.fileio import dump
from mmengine.runner import checkpoint
from mmengine.utils import digit_version
from mmengine.utils.dl_utils import load_url
from torch import nn

from ..files import replacing


def give_ssd_head_a_loss_cls() -> None:
    """Give ``SSDHead`` the ``loss_cls`` that mmdet 3.1 to 3.3.0 reads in ``predict``.

    Ends with the first release after mmdet 3.3.0, which must bring a fix of
    https://github.com/open-mmlab/mmdetection/issues/11063.
    """
    import mmdet
    from mmdet.models.dense_heads import SSDHead

    # A class attribute hides a submodule of that name, so this holds for SSDHead only because its
    # losses are functions; neither it nor PISASSDHead ever sets a `loss_cls`.
    if digit_version(mmdet.__version__) <= digit_version('3.3.0'):
        SSDHead.loss_cls = None


def trust_mmengine_checkpoints() -> None:
    """Let weights-only loading read the log (``HistoryBuffer``) and metrics that mmengine stores.

    ``torch.load`` refuses them; the protection stays on for everything else, also where mmengine calls it
    for a file: from torch 2.6 on, which setup.cfg asks for, it is the default. Ends with an mmengine that
    names its own safe globals (after 0.10.7; https://github.com/open-mmlab/mmengine/issues/1655).
    """
    from mmengine.logging import HistoryBuffer

    if HistoryBuffer in torch.serialization.get_safe_globals():
        return
    numpy_core = np._core if hasattr(np, '_core') else np.core
    safe: list[Any] = [
        HistoryBuffer,
        (_getattr_of_history_buffer, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
    ]
    # NumPy 2 renamed numpy.core; files written under either name must load under both.
    for package in ('numpy.core', 'numpy._core'):
        safe += [
            (numpy_core.multiarray._reconstruct, f'{package}.multiarray._reconstruct'),
            (numpy_core.multiarray.scalar, f'{package}.multiarray.scalar'),
        ]
    number_codes = '?' + np.typecodes['AllInteger'] + np.typecodes['AllFloat']
    safe += {type(np.dtype(code)) for code in number_codes}
    torch.serialization.add_safe_globals(safe)


def _getattr_of_history_buffer(owner: Any, name: str) -> Any:
    """Stand in for ``getattr`` in checkpoints, for ``HistoryBuffer``'s statistics alone.

    A ``HistoryBuffer`` is pickled with its statistics methods, each as a call of ``getattr``.
    Allowing ``getattr`` itself would open more than is needed.
    """
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'checkpoint asks for attribute {name!r} of {owner!r}: refused')


def read_addresses_as_data() -> None:
    """Let mmengine load ``http://``, ``torchvision://``, ``open-mmlab://`` and ``mmcls://`` weights-only.

    It calls ``torch.hub``, which still runs the code of a file by default. Ends with an mmengine (after
    0.10.7) that says ``weights_only`` itself: what it says goes before this.
    """
    checkpoint.load_url = functools.partial(load_url, weights_only=True)


def take_missing_iscrowd_and_area() -> None:
    """Let ``CocoMetric(ann_file=...)`` read boxes without ``iscrowd`` (0) and ``area`` (that of the box).

    pycocotools 2.0.11 ends with a ``KeyError`` in the evaluation, after the training. Ends with the first
    release of mmdet after 3.3.0, which must have one meaning for data set and metric.
    """
    import mmdet
    from mmdet.datasets.api_wrappers import COCO

    if digit_version(mmdet.__version__) > digit_version('3.3.0') or 'createIndex' in vars(COCO):
        return

    def create_index(self: COCO) -> None:
        for annotation in self.dataset.get('annotations', []):
            annotation.setdefault('iscrowd', 0)
            if annotation.get('area') is None and 'bbox' in annotation:
                annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
        super(COCO, self).createIndex()

    COCO.createIndex = create_index


def write_files_of_hooks_safely() -> None:
    """Write mmengine's ``last_checkpoint`` whole or not at all, and the test's metrics by one process alone.

    ``CheckpointHook`` opens the first itself, whatever its backend. The second is written by every process
    of a distributed test at the same time (``LoggerHook.after_test_epoch``), so that the texts can be
    mixed. Ends with an mmengine (after 0.10.7) that does otherwise.
    """
    from mmengine.hooks import checkpoint_hook, logger_hook

    checkpoint_hook.open = _open_replacing
    logger_hook.dump = master_only(dump)


@contextmanager
def _open_replacing(path: str, mode: str) -> Iterator[IO[Any]]:
    with replacing(path) as part, part.open(mode) as file:
        yield file


def silence_pkg_resources() -> None:
    """Hide the five lines by which setuptools 80 warns at every config on an ``mmdet::`` base.

    setup.cfg pins setuptools below 81, which removed ``pkg_resources``. Both end with the first
    release after mmengine 0.10.7 (https://github.com/open-mmlab/mmengine/pull/1676).
    """
    if digit_version(mmengine.__version__) <= digit_version('0.10.7'):
        warnings.filterwarnings(
            'ignore', message='pkg_resources is deprecated', category=UserWarning
        )


def guard_fuse_conv_bn() -> None:
    """Let ``mmcv.cnn.fuse_conv_bn`` refuse models that it would fuse wrongly.

    It fuses across whatever stands between a convolution and the next norm. MMDetection holds it by name in
    its benchmark tool; for the parts of a model it finds itself by the name in its module, so replacing
    it there reaches those who imported it before. Ends with an mmcv that follows the order of computation,
    which 2.1.0, the newest that mmdet 3.3.0 takes, does not.
    """
    import mmcv.cnn

    module = sys.modules['mmcv.cnn.utils.fuse_conv_bn']
    original = module.fuse_conv_bn
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def fuse_conv_bn(module: nn.Module) -> nn.Module:
        from ..deploy import check_conv_norm_fusion  # which imports mmdet.models

        check_conv_norm_fusion(module)
        return original(module)

    for place in (module, mmcv.cnn.utils, mmcv.cnn):
        place.fuse_conv_bn = fuse_conv_bn
