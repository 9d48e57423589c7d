"""Where the time steps of a network of several begin and end."""

from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor


@MODELS.register_module()
class RepeatInTime(BaseModule):
    """A backbone that sees each image in every time step.

    Args:
        module: Config of the backbone.
        steps: Number of time steps ``T``.
    """

    def __init__(self, module: dict[str, Any], steps: int) -> None:
        super().__init__()
        self.module = MODELS.build(module)
        self.steps = steps

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        """Return features (T * N, C, H, W) of images (N, 3, H, W), the first time step in front."""
        return self.module(x.repeat(self.steps, 1, 1, 1))


@MODELS.register_module()
class MeanOverTime(BaseModule):
    """A neck, or a backbone without one, whose features become means over the time steps.

    A head of convolutions gives the same for the mean as on average over the steps, being linear.

    Args:
        module: Config of the neck or backbone.
        steps: Number of time steps ``T``.
    """

    def __init__(self, module: dict[str, Any], steps: int) -> None:
        super().__init__()
        self.module = MODELS.build(module)
        self.steps = steps

    def forward(self, x: Any) -> tuple[Tensor, ...]:
        """Return features (N, C, H, W)."""
        return tuple(f.unflatten(0, (self.steps, -1)).mean(0) for f in self.module(x))
