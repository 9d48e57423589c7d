"""Functions in several processes that have imported the package already."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch

# Imported once, in the server that the processes are forked from.
multiprocessing.set_forkserver_preload(['hoyer_det', 'torch.distributed', 'mmengine.runner'])


def run_processes(function: Callable[..., None], arguments: tuple[Any, ...], number: int) -> None:
    """Call ``function(rank, *arguments)`` in so many processes, and wait for them."""
    torch.multiprocessing.start_processes(function, arguments, number, start_method='forkserver')
