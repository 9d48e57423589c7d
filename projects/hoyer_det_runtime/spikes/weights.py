"""Weights of a convolution in the order in which the C code reads them."""

from typing import NamedTuple

import numpy as np

from . import native

# Largest magnitude of weights that are added in pairs of bytes: see convolution.h.
_LARGEST = {native.INT5: 15, native.INT6: 31, native.INT16: 128}


class Rows(NamedTuple):
    """Rows of weights.

    Attributes:
        kind: One of the kinds of native.py.
        block_words: Words of 32 input channels that make a block.
        array: As the C code reads them.
        lanes: Output channels of a row.
    """

    kind: int
    block_words: int
    array: np.ndarray
    lanes: int


def sums_fit(weight: np.ndarray) -> bool:
    """Whether no sum of some integer weights (M, C, h, w) of a channel leaves int16."""
    flat = weight.reshape(len(weight), -1).astype(np.int64)
    return bool(
        flat.clip(0).sum(1).max(initial=0) <= 32767
        and flat.clip(None, 0).sum(1).min(initial=0) >= -32768
    )


def choose_kind(weight: np.ndarray) -> int:
    """Return the fastest kind that holds weights (M, C, h, w) and their sums exactly."""
    if weight.dtype == np.int8 and sums_fit(weight):
        largest = int(np.abs(weight.astype(np.int16)).max(initial=0))
        for kind, most in _LARGEST.items():
            if largest <= most:
                return kind
    return native.FLOAT32


def arrange(weight: np.ndarray, kind: int) -> Rows:
    """Arrange weights (M, C, h, w) as rows: (groups of outputs, blocks of inputs, rows, lanes).

    The rows of a block go by kernel position, column by column, then by input channel. All kinds but
    ``INT16`` have one row of zeros behind them, with which lists are filled up.
    """
    outputs, channels, height, width = weight.shape
    taps = height * width
    words = -(-channels // 32)
    block = native.block_words(kind, taps, words)
    blocks, lanes = -(-words // block), 32 if kind == native.FLOAT32 else 64
    groups = -(-outputs // lanes)
    full = np.zeros((groups * lanes, blocks * block * 32, height, width), weight.dtype)
    full[:outputs, :channels] = weight
    rows = full.reshape(groups, lanes, blocks, block * 32, height, width)
    rows = rows.transpose(0, 2, 5, 4, 3, 1).reshape(groups, blocks, taps * block * 32, lanes)
    if kind == native.INT16:
        return Rows(kind, block, native.aligned(rows), lanes)
    rows = np.concatenate([rows, np.zeros((groups, blocks, 1, lanes), rows.dtype)], axis=2)
    if kind == native.FLOAT32:
        return Rows(kind, block, native.aligned(rows.astype(np.float32)), lanes)
    lower, upper = rows[..., :32].astype(np.int16), rows[..., 32:].astype(np.int16)
    return Rows(kind, block, native.aligned(256 * upper + lower), lanes)


def arrange_stem(weight: np.ndarray) -> np.ndarray:
    """Arrange int8 weights (M, C <= 4, h, w) as (groups of 16 outputs, h, w, 16, 4 inputs)."""
    outputs, channels, height, width = weight.shape
    groups = -(-outputs // 16)
    full = np.zeros((groups * 16, 4, height, width), np.int8)
    full[:outputs, :channels] = weight
    return native.aligned(full.reshape(groups, 16, 4, height, width).transpose(0, 3, 4, 1, 2))


def filled(values: np.ndarray, size: int, rest: float) -> np.ndarray:
    """Return 1-D values filled up to ``size``."""
    full = np.full(size, rest, values.dtype)
    full[: len(values)] = values
    return native.aligned(full)


def as_words(flags: np.ndarray, words: int) -> np.ndarray:
    """Return flags (C,) as bits of ``words`` words of uint32."""
    full = np.zeros(words * 32, np.uint8)
    full[: len(flags)] = flags
    return native.aligned(np.packbits(full, bitorder='little').view(np.uint32))
