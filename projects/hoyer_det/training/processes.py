"""Several processes on machines without a GPU, which mmengine's launchers do not provide for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def on_cpu(dist_cfg: dict[str, Any]) -> dict[str, Any]:
    """Return a config of the process group with Gloo, where it names a backend of GPUs."""
    if dist_cfg.get('backend', 'nccl') == 'nccl':
        return {**dist_cfg, 'backend': 'gloo'}
    return dist_cfg


@contextmanager
def without_devices() -> Iterator[None]:
    """Let mmengine's launchers start without a GPU: they choose one, which raises where there is none.

    Ends with a release after mmengine 0.10.7 that asks for one only where it is there.
    """
    chosen = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        yield
    finally:
        torch.cuda.set_device = chosen
