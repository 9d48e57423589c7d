"""Runs an exported model on its spikes."""

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from ..engines import KEPT_SIZES
from . import native
from .checks import check_shapes
from .graph import Graph, check
from .islands import Island
from .layers import BITS, Fire, RealConv, RealStem, StemConv
from .matching import find_layers
from .merging import merge_readouts
from .plan import Constants, Plan
from .schedule import Stage, schedule

_Step = Callable[[dict[str, np.ndarray]], None]


@dataclass
class _Ready:
    """A plan and its steps, each with its name."""

    plan: Plan
    steps: list[tuple[str, _Step]]


class SpikeEngine:
    """Runs an exported model, adding the weights of active inputs alone.

    Convolutions that read spikes, their neurons and what pools, joins and repeats spikes run in C on
    bits; so does a first convolution that reads the image as bytes. The rest, such as the decoding of
    boxes, is left to ONNX Runtime.

    Args:
        model: File that ``hoyer-det export`` wrote, or a model that is loaded already.
        threads: Threads; one is best where several processes run, and all that a forked process uses.
        keep_spikes: Whether :meth:`spikes` and :meth:`rates` are wanted; else the memory of a value goes
            to others when it has been read.
        instructions: As for :func:`native.library`.

    Raises:
        RuntimeError: If the C code cannot be compiled.
        ValueError: If the model has no spiking layer in the form that the engine knows.

    Attributes:
        layers: What the engine runs itself, in order.
        left: Types of the nodes that ONNX Runtime runs, in order.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto,
        threads: int = 1,
        keep_spikes: bool = False,
        instructions: str = 'native',
    ) -> None:
        if not isinstance(model, onnx.ModelProto):
            try:
                model = onnx.load(model)
            except DecodeError as error:
                raise ValueError(f'{model}: no ONNX file, or a damaged one ({error})') from error
        check(model)
        self._library = native.library(instructions)
        self._threads = native.usable_threads(threads)
        self._graph = graph = Graph(merge_readouts(model))
        self.layers = find_layers(graph, self._library.largest_stem_weight())
        if len(graph.inputs) != 1:
            raise ValueError(
                f'the model has {len(graph.inputs)} inputs; it must have one, the image'
            )
        if not any(isinstance(layer, BITS) for layer in self.layers):
            raise ValueError(
                'the model has no spiking layer in the form that hoyer-det export writes'
            )
        check_shapes(self.layers, graph.shapes)
        self._stages = schedule(graph, self.layers)
        self.left = [node.op_type for stage in self._stages for node in stage.nodes]
        self._numbers = {
            *(layer.output for layer in self.layers if not isinstance(layer, BITS)),
            *(
                layer.stream
                for layer in self.layers
                if isinstance(layer, RealConv) and layer.stream
            ),
            *(layer.inputs[0] for layer in self.layers if isinstance(layer, Fire)),
        }
        self._bits = {layer.output for layer in self.layers if isinstance(layer, BITS)}
        # But for those that a pooling reads at once, which are no values of the graph.
        self._spikes = [
            layer.output
            for layer in self.layers
            if layer.output in graph.producer and isinstance(layer, BITS)
        ]
        self._own = {layer.output for layer in self.layers}
        self._images = {
            layer.inputs[0] for layer in self.layers if isinstance(layer, StemConv | RealStem)
        }
        self._islands = [self._island(stage) if stage.nodes else None for stage in self._stages]
        self._last_readers = {} if keep_spikes else self._find_last_readers()
        self._constants = Constants()
        self._ready: dict[int, _Ready] = {}
        self._lock = threading.Lock()  # calls share the memory of a plan

    def _find_last_readers(self) -> dict[int, list[str]]:
        """Return the values that nobody reads behind each layer, by its ``id``."""
        last = {}
        for stage in self._stages:
            last.update({name: layer for layer in stage.layers for name in layer.inputs})
        # ONNX Runtime reads when it wants to.
        read = {name for stage in self._stages for node in stage.nodes for name in node.input}
        found: dict[int, list[str]] = {}
        for name, layer in last.items():
            if name not in read and name not in self._graph.outputs:
                found.setdefault(id(layer), []).append(name)
        return found

    def memory(self, batch: int = 1) -> int:
        """Return the bytes of activations and buffers for so many images, without weights."""
        return self._prepare(batch).plan.memory()

    def _island(self, stage: Stage) -> Island:
        others = [node for other in self._stages if other is not stage for node in other.nodes]
        wanted = {*self._graph.outputs, *(name for node in others for name in node.input)}
        wanted.update(name for layer in self.layers for name in layer.inputs)
        return Island(self._graph, stage.nodes, wanted, self._numbers, self._threads)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run uint8 images (N, 3, H, W); return the outputs of the model by name.

        Several Python threads may call; they take turns.
        """
        values = {**self._graph.constants, self._graph.inputs[0]: images}
        with self._lock:
            ready = self._prepare(len(images))
            for _, step in ready.steps:
                step(values)
            return {name: self._value(ready.plan, name, values) for name in self._graph.outputs}

    def timed(self, images: np.ndarray) -> list[tuple[str, float]]:
        """Run uint8 images (N, 3, H, W) and return the seconds of each step by its name.

        A layer's name is that of its output; it comes several times if the layer runs in strips. What
        ONNX Runtime does, and moving values to it, goes by the output of its first node; taking values
        over from the caller or from it by ``'inputs'``.
        """
        values, times = {self._graph.inputs[0]: images}, []
        with self._lock:
            for name, step in self._prepare(len(images)).steps:
                start = time.perf_counter()
                step(values)
                times.append((name, time.perf_counter() - start))
        return times

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape (N, C, H, W) of a value, N of one image."""
        return self._graph.shapes[name]

    def spikes(self, batch: int) -> dict[str, np.ndarray]:
        """Return the spikes of the last call with so many images: uint8 (N, C, H, W) by name.

        Raises:
            ValueError: If spikes were not kept, or such a call is not among those of the last few sizes.
        """
        plan = self._kept_plan(batch)
        return {name: self._unpacked(plan, name) for name in self._spikes}

    def rates(self, batch: int) -> dict[str, float]:
        """Return the share of active entries in the last call with so many images, by name."""
        plan = self._kept_plan(batch)
        rates = {}
        for name in self._spikes:
            bits = plan.bits[name]
            entries = self._graph.shapes[name][1] * bits[..., 0].size
            words = ctypes.c_int64(bits.size)
            rates[name] = self._library.count_bits(words, native.address(bits)) / entries
        return rates

    def _kept_plan(self, batch: int) -> Plan:
        if self._last_readers:
            raise ValueError('SpikeEngine: spikes were not kept; build it with keep_spikes=True')
        if batch not in self._ready:
            raise ValueError(f'SpikeEngine: no spikes are kept of a call with {batch} images')
        return self._ready[batch].plan

    def _prepare(self, batch: int) -> _Ready:
        threads = native.usable_threads(self._threads)
        if threads != self._threads:  # what was prepared before the fork asks for more
            self._threads = threads
            self._ready.clear()
        if batch not in self._ready:
            if len(self._ready) == KEPT_SIZES:
                del self._ready[next(iter(self._ready))]  # the oldest, whose memory is large
            plan = Plan(
                self._library,
                batch,
                self._graph.shapes,
                self._constants,
                self._threads,
                self._last_readers,
            )
            steps: list[tuple[str, _Step]] = []
            for stage, island in zip(self._stages, self._islands, strict=True):
                if island is None:
                    steps += self._layer_steps(plan, stage)
                else:
                    steps.append((stage.nodes[0].output[0], self._island_step(plan, island)))
            self._ready[batch] = _Ready(plan, steps)
        return self._ready[batch]

    def _layer_steps(self, plan: Plan, stage: Stage) -> list[tuple[str, _Step]]:
        made = {layer.output for layer in stage.layers}
        outside = {name for layer in stage.layers for name in layer.inputs} - made
        image = outside & self._images
        numbers = [n for n in outside & self._numbers if n not in self._own]
        for name in numbers:  # they come before the stage runs: not into memory that it frees
            plan.wanted_numbers(name)
        calls = plan.steps(stage.layers)

        def take_over(values: dict[str, np.ndarray]) -> None:
            for name in image:
                _put(values[name], plan.image)
            for name in numbers:
                _put(values[name].transpose(0, 2, 3, 1), plan.numbers[name])

        return [('inputs', take_over), *((name, _without_values(call)) for name, call in calls)]

    def _island_step(self, plan: Plan, island: Island) -> Callable[[dict[str, np.ndarray]], None]:
        last = island.channels_last

        def run(values: dict[str, np.ndarray]) -> None:
            feed = {
                name: self._value(plan, name, values) for name in island.inputs if name not in last
            }
            feed.update((name, plan.numbers[name]) for name in last)
            values.update(island(feed))

        return run

    def _value(self, plan: Plan, name: str, values: dict[str, np.ndarray]) -> np.ndarray:
        """Return a value as ONNX has it, channels behind the number of images."""
        if name in self._bits:
            return self._unpacked(plan, name)
        if name in self._own:
            return plan.numbers[name].transpose(0, 3, 1, 2).copy()  # the next call writes there
        return values[name]

    def _unpacked(self, plan: Plan, name: str) -> np.ndarray:
        bits = plan.bits[name]
        channels = self._graph.shapes[name][1]
        out = np.empty((len(bits), channels, *bits.shape[1:3]), np.uint8)
        sizes = (ctypes.c_int64(n) for n in (len(bits), channels, bits.shape[1] * bits.shape[2]))
        self._library.unpack(*sizes, native.address(bits), native.address(out))
        return out


def _put(values: np.ndarray, place: np.ndarray) -> None:
    if (values.shape, values.dtype) != (place.shape, place.dtype):
        raise ValueError(
            f'the spike engine takes {place.dtype} {place.shape} here, not {values.dtype} '
            f'{values.shape}'
        )
    place[...] = values


def _without_values(call: Callable[[], object]) -> _Step:
    def step(values: dict[str, np.ndarray]) -> None:
        call()

    return step
