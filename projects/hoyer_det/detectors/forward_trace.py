"""Runs a copy of a model and keeps how often, where and on which shapes its activations ran."""

import copy
import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

FUNCTIONS = frozenset(
    name + ending
    for name in (
        *('relu', 'relu6', 'leaky_relu', 'prelu', 'rrelu', 'elu', 'celu', 'selu'),
        *('gelu', 'silu', 'mish', 'hardswish'),
    )
    for ending in ('', '_')
)


@dataclass(frozen=True)
class Application:
    """One call of an activation.

    Attributes:
        around: Calls of modules that it took place in, outermost first, each as name and number.
        shape: Shape of its input.
    """

    around: tuple[tuple[str, int], ...]
    shape: torch.Size


@dataclass(frozen=True)
class Use:
    """How a model uses an activation.

    Attributes:
        frame: Name of the module of which each forward applies the activation equally often; None
            where there is none.
        shapes: For each of these applications, in their order, the shapes of its inputs; all shapes
            under one entry without a ``frame``.
        inside: Names of the modules between ``frame`` and the activation, with the ``frame``.
        total: Applications in a forward pass of the whole model, at most.
    """

    frame: str | None
    shapes: list[set[torch.Size]]
    inside: frozenset[str]
    total: int


@dataclass
class _Pass:
    applications: dict[str, list[Application]] = field(default_factory=lambda: defaultdict(list))
    completed: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def drop_incomplete(self) -> None:
        """Forget activations that ran inside a forward which an error ended."""
        self.applications = {
            name: applications
            for name, applications in self.applications.items()
            if all(number in self.completed[n] for a in applications for n, number in a.around)
        }


@dataclass
class ForwardTrace:
    """What :func:`trace_forward` saw.

    Attributes:
        passes: The forward passes.
        functions: Pairs of a module's name and an activation that it called as a function.
        errors: The error of each forward pass that failed.
    """

    passes: list[_Pass] = field(default_factory=list)
    functions: dict[tuple[str, str], None] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)

    def use(self, name: str) -> Use | None:
        """Return how the activation of a name is used, None if no completed forward ran it.

        The frame is the innermost module that runs once in a forward pass and holds all applications
        of the activation: a residual block, or a head with its loop over feature levels. If there is
        none, it is the module that calls the activation.
        """
        passes = [p for p in self.passes if p.applications.get(name)]
        if not passes:
            return None
        around = [frame for frame, _ in reversed(passes[0].applications[name][0].around)]
        total = max(len(p.applications[name]) for p in passes)
        for once in (True, False):
            for depth, frame in enumerate(around if once else around[:1]):
                groups = _by_call(passes, name, frame, once)
                if groups is not None:
                    shapes = [set(same) for same in zip(*groups, strict=True)]
                    return Use(frame, shapes, frozenset(around[: depth + 1]), total)
        shapes = {a.shape for p in passes for a in p.applications[name]}
        return Use(None, [shapes], frozenset(around[:1]), total)


def _by_call(
    passes: Sequence[_Pass], name: str, frame: str, once: bool
) -> list[list[torch.Size]] | None:
    """Return the shapes that each call of ``frame`` brings to an activation, None if unequal many."""
    groups: list[list[torch.Size]] = []
    for one in passes:
        calls: dict[int, list[torch.Size]] = {number: [] for number in one.completed[frame]}
        if once and len(calls) > 1:
            return None
        for application in one.applications[name]:
            number = dict(application.around).get(frame)
            if number is None:
                return None
            calls[number].append(application.shape)
        groups += calls.values()
    return groups if len({len(group) for group in groups}) == 1 else None


def trace_forward(
    model: nn.Module,
    activations: tuple[type[nn.Module], ...],
    forwards: Sequence[Callable[[nn.Module], Any]],
) -> ForwardTrace:
    """Run a copy of a model on the CPU, without gradients, and keep what its activations did.

    The model itself, its buffers, the random generators and the distributed processes are left alone.

    Args:
        model: Model; its weights do not matter, and may be on the ``meta`` device.
        activations: Classes that count as activations.
        forwards: Forward passes, each a function of the model.
    """
    trace = ForwardTrace()
    twin = _copy(model)
    for forward in forwards:
        one = _Pass()
        trace.passes.append(one)
        with _aside(), _Recorder(twin, activations, one, trace.functions):
            try:
                forward(twin)
            except Exception as error:
                trace.errors.append(error)
        one.drop_incomplete()
    return trace


def _copy(model: nn.Module) -> nn.Module:
    """Return a copy on the CPU, with weights that keep its outputs small and finite."""
    twin = copy.deepcopy(model)
    meta = any(tensor.is_meta for tensor in (*twin.parameters(), *twin.buffers()))
    twin = twin.to_empty(device='cpu') if meta else twin.cpu()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.nan_to_num_(0, 0, 0).clamp_(-1, 1)  # some are set by `init_weights` alone
        for module in twin.modules():
            # Heads that refine boxes again and again would turn them inside out.
            if isinstance(module, nn.Linear | _ConvNd):
                module.weight.mul_(0.01)
    return twin


@contextmanager
def _aside() -> Iterator[None]:
    """Keep the random generators as they are, and warnings, gradients and other processes away."""
    states = random.getstate(), np.random.get_state()
    # The losses of MMDetection average over processes; others may not be building a model now.
    alone = mock.patch('torch.distributed.is_initialized', lambda: False, create=True)
    try:
        with alone, torch.random.fork_rng([]), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


class _Recorder(TorchFunctionMode):
    """Follows the calls of modules by hooks, and activations that are functions by their names."""

    def __init__(
        self,
        model: nn.Module,
        activations: tuple[type[nn.Module], ...],
        one: _Pass,
        functions: dict[tuple[str, str], None],
    ) -> None:
        super().__init__()
        self._modules = dict(model.named_modules())
        self._activations, self._pass, self._functions = activations, one, functions
        self._stack: list[tuple[str, int]] = []
        self._numbers = iter(range(10**9))

    def __enter__(self) -> '_Recorder':
        self._hooks = ExitStack()
        for name, module in self._modules.items():

            def enter(module: nn.Module, args: tuple, name: str = name) -> None:
                if isinstance(module, self._activations) and args and isinstance(args[0], Tensor):
                    application = Application(tuple(self._stack), args[0].shape)
                    self._pass.applications[name].append(application)
                self._stack.append((name, next(self._numbers)))

            def leave(module: nn.Module, args: tuple, output: Any) -> None:
                name, number = self._stack.pop()
                self._pass.completed[name].add(number)

            self._hooks.enter_context(module.register_forward_pre_hook(enter))
            self._hooks.enter_context(module.register_forward_hook(leave))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.close()

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = getattr(func, '__name__', '')
        if name in FUNCTIONS and self._stack:
            inside = self._stack[-1][0]
            if not isinstance(self._modules[inside], self._activations):
                self._functions[inside, name] = None
        return func(*args, **(kwargs or {}))
