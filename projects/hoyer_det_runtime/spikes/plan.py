"""A program for one number of images: memory, and the calls of the C code in order."""

import ctypes
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from . import native
from .chains import find_chains
from .layers import (
    AddNumbers,
    Fire,
    JoinBits,
    JoinNumbers,
    Layer,
    MeanNumbers,
    PoolBits,
    PoolNumbers,
    RealConv,
    RealStem,
    RepeatBits,
    RepeatNumbers,
    SpikingConv,
    StemConv,
)
from .strips import Part
from .weights import Rows, arrange, arrange_stem, as_words, choose_kind, filled

_NEVER = np.iinfo(np.int16).max  # no sum is above it
Step = Callable[[], Any]


class Constants:
    """Weights of the layers in the order in which the C code reads them; shared by all plans."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Layer, Any]] = {}

    def rows(self, layer: SpikingConv | RealConv) -> Rows:
        """Return the rows of a convolution."""
        return self._get(layer, lambda: arrange(layer.weight, choose_kind(layer.weight)))

    def stem(self, layer: StemConv | RealStem) -> np.ndarray:
        """Return the weights of a stem."""
        return self._get(layer, lambda: arrange_stem(layer.weight))

    def _get(self, layer: Layer, make: Callable[[], Any]) -> Any:
        if id(layer) not in self._kept:
            self._kept[id(layer)] = layer, make()
        return self._kept[id(layer)][1]


class Plan:
    """Steps of the engine for images of one number and size.

    Args:
        library: The C code.
        batch: Number of images.
        shapes: (N, C, H, W) of each value, N ignored.
        constants: Weights.
        threads: Threads.
        last_readers: Layer (by ``id``) that is the last to read some values: their names. Their memory
            goes to values that are made later.

    Attributes:
        bits: Spikes by name: uint32 (N, H, W, words).
        numbers: Numbers by name: float32 (N, H, W, C).
        image: Where the image is put, uint8 (N, C, H, W).
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        batch: int,
        shapes: dict[str, tuple[int, ...]],
        constants: Constants,
        threads: int,
        last_readers: dict[int, list[str]],
    ) -> None:
        self.bits: dict[str, np.ndarray] = {}
        self.numbers: dict[str, np.ndarray] = {}
        self.image: np.ndarray | None = None
        self._library, self._batch, self._threads = library, batch, threads
        self._shapes, self._constants = shapes, constants
        self._last_readers = last_readers
        self._parts: dict[str, list[Part]] = {}  # of outputs that are made in strips
        self._lines: dict[str, int] = {}  # of values that are never there whole
        self._free: list[np.ndarray] = []  # bytes
        self._kept: list[Any] = []  # what the C code reads by address
        self._scratch = native.empty(64, np.uint8)
        self._scratch_address = native.address(self._scratch)

    def steps(self, layers: list[Layer]) -> list[tuple[str, Step]]:
        """Return the calls for layers in order, each with the output of its layer.

        Layers that run in strips have a call for each strip.
        """
        make = {
            StemConv: self._stem,
            SpikingConv: self._spiking,
            RealConv: self._real,
            RealStem: self._real_stem,
            PoolBits: self._pool,
            PoolNumbers: self._pool_numbers,
            JoinNumbers: self._join_numbers,
            AddNumbers: self._add_numbers,
            MeanNumbers: self._mean_numbers,
            JoinBits: self._join,
            RepeatBits: self._repeat,
            RepeatNumbers: self._repeat,
            Fire: self._fire,
        }
        steps: list[tuple[str, Step]] = []
        # Several images keep their spikes whole.
        read_last = self._last_readers if self._batch == 1 else {}
        for chain in find_chains(layers, self._shapes, read_last):
            self._parts.update(chain.parts)
            self._lines.update(chain.lines)
            calls = [make[type(layer)](layer) for layer in chain.layers]
            names = [layer.output for layer in chain.layers]
            for strip in zip(*calls, strict=True):
                steps += zip(names, strip, strict=True)
            for layer in chain.layers:
                for name in self._last_readers.get(id(layer), ()):
                    for values in (self.bits, self.numbers):
                        if name in values:
                            self._free.append(values[name].reshape(-1).view(np.uint8))
        return steps

    def memory(self) -> int:
        """Return the bytes of all values, of the image and of what the C code works with."""
        arrays = [*self.bits.values(), *self.numbers.values(), self._scratch]
        arrays += [] if self.image is None else [self.image]
        places = {
            array.ctypes.data: array.nbytes for array in sorted(arrays, key=lambda a: a.nbytes)
        }
        return sum(places.values())

    def wanted_numbers(self, name: str) -> np.ndarray:
        """Return the place of numbers, which another may fill."""
        if name not in self.numbers:
            channels, height, width = self._shapes[name][1:]
            self.numbers[name] = self._new((self._batch, height, width, channels), np.float32)
        return self.numbers[name]

    def _new_bits(self, name: str) -> np.ndarray:
        channels, height, width = self._shapes[name][1:]
        shape = self._batch, self._lines.get(name, height), width, -(-channels // 32)
        self.bits[name] = self._new(shape, np.uint32)
        return self.bits[name]

    def _new(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Return memory, of a value that nobody reads any more where that is large enough."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        fitting = [array for array in self._free if array.size >= size]
        if not fitting:
            return native.empty(shape, dtype)
        best = min(fitting, key=lambda array: array.size)
        self._free = [array for array in self._free if array is not best]
        return best[:size].view(dtype).reshape(shape)

    def _stem(self, layer: StemConv) -> list[Step]:
        words = -(-len(layer.weight) // 32)
        level = np.clip(layer.level + _shift(layer), -(2**31), 2**31 - 1).astype(np.int32)
        ends = dict(
            level=filled(level, words * 32, 2**31 - 1),
            flip=as_words(layer.flip, words),
            spikes=self._new_bits(layer.output),
        )
        return self._run_stem(layer, ends)

    def _real_stem(self, layer: RealStem) -> list[Step]:
        lanes = -(-len(layer.weight) // 16) * 16
        ends = dict(
            step=filled(layer.step.astype(np.float32), lanes, 0),
            bias=filled(layer.bias.astype(np.float32), lanes, 0),
            shift=filled(_shift(layer).astype(np.int32), lanes, 0),
            numbers=self.wanted_numbers(layer.output),
        )
        return self._run_stem(layer, ends)

    def _run_stem(self, layer: StemConv | RealStem, ends: dict[str, np.ndarray]) -> list[Step]:
        if self.image is None:
            self.image = native.empty((self._batch, *self._shapes[layer.inputs[0]][1:]), np.uint8)
        weights = self._constants.stem(layer)
        self._kept += ends.values()

        def run(part: Part) -> Step:
            sizes = layer.weight.shape[1], len(layer.weight), layer.zero, self._threads
            stem = native.Stem(self._window(layer, part), *sizes)
            self._need(self._threads * self._library.stem_bytes(ctypes.byref(stem)))
            return self._call(
                'run_stem',
                ctypes.byref(stem),
                self.image,
                weights,
                ctypes.byref(native.StemEnds(**_addresses(ends, part))),
                self._scratch_address,
            )

        return self._in_parts(layer, ends.get('spikes'), run)

    def _spiking(self, layer: SpikingConv) -> list[Step]:
        outputs = len(layer.weight)
        rows = self._constants.rows(layer)
        if rows.kind == native.FLOAT32:
            raise ValueError(
                f'{layer.output}: sums of its weights may leave int16; export the model again'
            )
        lanes = -(-outputs // 64) * 64
        # A channel that always fires is one that never does, turned around.
        always = layer.level <= np.iinfo(np.int16).min
        below = np.where(always, _NEVER, np.clip(layer.level - 1, -32768, _NEVER)).astype(np.int16)
        flip = layer.flip.astype(np.uint8) ^ always.astype(np.uint8)
        ends = dict(
            below=filled(below, lanes, _NEVER),
            flip=as_words(flip, lanes // 32),
            spikes=self._new_bits(layer.output),
        )
        return self._convolve(layer, rows, ends)

    def _real(self, layer: RealConv) -> list[Step]:
        rows = self._constants.rows(layer)
        step, bias = layer.step, layer.bias
        if rows.kind == native.FLOAT32 and layer.weight.dtype == np.int8:
            rows = rows._replace(array=self._scaled(layer))
            step = np.ones_like(step)
        lanes = -(-len(step) // rows.lanes) * rows.lanes
        stream = None if layer.stream is None else self.wanted_numbers(layer.stream)
        ends = dict(
            step=filled(step.astype(np.float32), lanes, 0),
            bias=filled(bias.astype(np.float32), lanes, 0),
            stream=stream,
            numbers=self.wanted_numbers(layer.output),
        )
        return self._convolve(layer, rows, ends)

    def _scaled(self, layer: RealConv) -> np.ndarray:
        weight = layer.weight.astype(np.float32) * layer.step.reshape(-1, 1, 1, 1)
        return arrange(weight, native.FLOAT32).array

    def _convolve(
        self, layer: SpikingConv | RealConv, rows: Rows, ends: dict[str, np.ndarray | None]
    ) -> list[Step]:
        spikes = self.bits[layer.inputs[0]]
        words, taps = spikes.shape[-1], math.prod(layer.geometry.kernel)
        blocks = -(-words // rows.block_words)
        self._kept += ends.values()

        def run(part: Part) -> Step:
            window = self._window(layer, part)
            threads = max(1, min(self._threads, (part.end - part.first) * window.OW))
            call = native.Convolution(
                window, words, len(layer.weight), rows.block_words, 0, rows.kind, threads
            )
            others = self._library.scratch_bytes(ctypes.byref(call))
            call.capacity = native.capacity(blocks, taps * rows.block_words * 32, others)
            self._need(threads * self._library.scratch_bytes(ctypes.byref(call)))
            return self._call(
                'convolve',
                ctypes.byref(call),
                _begin(spikes, part.source),
                rows.array,
                ctypes.byref(native.Ends(**_addresses(ends, part))),
                self._scratch_address,
            )

        return self._in_parts(layer, ends.get('spikes'), run)

    def _pool(self, layer: PoolBits) -> list[Step]:
        source = self.bits[layer.inputs[0]]
        words = source.shape[-1]
        flip = as_words(layer.flip, words)
        out = self._new_bits(layer.output)

        def run(part: Part) -> Step:
            return self._call(
                'pool_bits',
                ctypes.byref(self._window(layer, part)),
                _wide(words),
                _begin(source, part.source),
                flip,
                _begin(out, part.target),
                _wide(self._threads),
            )

        return self._in_parts(layer, out, run)

    def _in_parts(
        self, layer: Layer, out: np.ndarray | None, run: Callable[[Part], Step]
    ) -> list[Step]:
        """Return the calls that make the spikes ``out`` in strips, or one that makes all of an output."""
        if layer.output not in self._parts:
            return [run(self._whole(layer))]
        address, line = out.ctypes.data, out[0, 0].nbytes
        steps = []
        for part in self._parts[layer.output]:
            kept = address, address + part.kept_from * line, part.kept * line
            steps.append(partial(_all, [partial(ctypes.memmove, *kept), run(part)]))
        return steps

    def _whole(self, layer: Layer) -> Part:
        return Part(0, self._batch * self._shapes[layer.output][2])

    def _join(self, layer: JoinBits) -> list[Step]:
        out = self._new_bits(layer.output)
        places, words = _wide(out[..., 0].size), _wide(out.shape[-1])
        calls: list[Step] = [partial(out.fill, 0)]
        offset = 0
        for name in layer.inputs:
            channels = self._shapes[name][1]
            arguments = self.bits[name], _wide(channels), out, words, _wide(offset)
            calls.append(self._call('append_channels', places, *arguments))
            offset += channels
        return [partial(_all, calls)]

    def _repeat(self, layer: RepeatBits | RepeatNumbers) -> list[Step]:
        # Words of spikes and numbers have 4 bytes each.
        name, of_bits = layer.inputs[0], isinstance(layer, RepeatBits)
        source = self.bits[name] if of_bits else self.wanted_numbers(name)
        out = self._new_bits(layer.output) if of_bits else self.wanted_numbers(layer.output)
        sizes = [_wide(n) for n in (*source.shape, *layer.scale)]
        return [self._call('repeat_places', *sizes, source, out)]

    def _fire(self, layer: Fire) -> list[Step]:
        source = self.wanted_numbers(layer.inputs[0])
        channels = source.shape[-1]
        words = -(-channels // 32)
        call = self._call(
            'fire',
            *(_wide(source[..., 0].size), _wide(channels), source),
            *(native.aligned(layer.level), as_words(layer.flip, words)),
            *(self._new_bits(layer.output), _wide(self._threads)),
        )
        return [call]

    def _pool_numbers(self, layer: PoolNumbers) -> list[Step]:
        window = self._window(layer, self._whole(layer))
        source, out = self.wanted_numbers(layer.inputs[0]), self.wanted_numbers(layer.output)
        channels, scale = _wide(source.shape[-1]), native.aligned(layer.scale)
        arguments = channels, source, scale, out, _wide(self._threads)
        return [self._call('pool_numbers', ctypes.byref(window), *arguments)]

    def _join_numbers(self, layer: JoinNumbers) -> list[Step]:
        out = self.wanted_numbers(layer.output)
        places, all_channels = _wide(out[..., 0].size), _wide(out.shape[-1])
        calls, offset = [], 0
        for name in layer.inputs:
            source = self.wanted_numbers(name)
            channels = source.shape[-1]
            arguments = source, _wide(channels), out, all_channels, _wide(offset)
            calls.append(self._call('join_numbers', places, *arguments))
            offset += channels
        return [partial(_all, calls)]

    def _add_numbers(self, layer: AddNumbers) -> list[Step]:
        one, other = (self.wanted_numbers(name) for name in layer.inputs)
        out = self.wanted_numbers(layer.output)
        return [self._call('add_numbers', _wide(out.size), one, other, out)]

    def _mean_numbers(self, layer: MeanNumbers) -> list[Step]:
        source, out = self.wanted_numbers(layer.inputs[0]), self.wanted_numbers(layer.output)
        return [self._call('mean_numbers', _wide(out.size), _wide(layer.size), source, out)]

    def _window(self, layer: Layer, part: Part) -> native.Window:
        sides = self._shapes[layer.inputs[0]][2:], self._shapes[layer.output][2:]
        geometry = layer.geometry
        return native.Window(
            self._batch,
            *(*sides[0], *sides[1], *geometry.kernel, *geometry.stride),
            *(*geometry.padding, *geometry.dilation, part.first, part.end),
        )

    def _need(self, size: int) -> None:
        """Make sure of room for what the C code works with."""
        if size > self._scratch.size:
            self._scratch = native.empty(size, np.uint8)
            self._scratch_address.value = self._scratch.ctypes.data

    def _call(self, name: str, *arguments: Any) -> Step:
        self._kept += arguments
        ready = [native.address(a) if isinstance(a, np.ndarray) else a for a in arguments]
        return partial(getattr(self._library, name), *ready)


def _shift(layer: StemConv | RealStem) -> np.ndarray:
    """Return what the zero of the image adds to each sum, as the border counts as 0."""
    return layer.zero * layer.weight.astype(np.int64).sum((1, 2, 3))


def _begin(spikes: np.ndarray, line: int) -> ctypes.c_void_p:
    """Return where line 0 of spikes (1, lines, W, words) would be, if their memory begins with another."""
    return ctypes.c_void_p(spikes.ctypes.data - (line * spikes[0, 0].nbytes if line else 0))


def _addresses(ends: dict[str, np.ndarray | None], part: Part) -> dict[str, ctypes.c_void_p]:
    """Return what becomes of sums by address, spikes as :func:`_begin`."""
    found = {name: native.address(array) for name, array in ends.items()}
    if 'spikes' in ends:
        found['spikes'] = _begin(ends['spikes'], part.target)
    return found


def _wide(number: int) -> ctypes.c_int64:
    return ctypes.c_int64(number)


def _all(calls: list[Step]) -> None:
    for call in calls:
        call()
