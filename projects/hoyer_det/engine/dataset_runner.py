"""A runner for configs that leave to the data set what the data set knows."""

import copy
from typing import Any

from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..datasets.completion import complete_config


@RUNNERS.register_module()
class DatasetRunner(Runner):
    """MMEngine's runner, built from a config that it completes first.

    A config says ``runner_type = 'DatasetRunner'`` and MMDetection's own ``tools/train.py`` and
    ``tools/test.py`` build it: classes, splits and each ``num_classes`` then come from the data set, see
    :func:`hoyer_det.datasets.complete_config`. The config in the work folder is the completed one.
    """

    @classmethod
    def from_cfg(cls, cfg: Any) -> Runner:
        """Build a runner from a config, which stays as it is."""
        cfg = copy.deepcopy(cfg)
        complete_config(cfg)
        return super().from_cfg(cfg)
