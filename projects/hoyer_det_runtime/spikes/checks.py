"""Makes sure that the C code stays within its arrays, whatever a file says."""

import math

from .layers import (
    AddNumbers,
    Fire,
    Geometry,
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

Shape = tuple[int, ...]
_LARGEST = 1 << 31


def check_shapes(layers: list[Layer], shapes: dict[str, Shape]) -> None:
    """Compare the shapes that a file declares with what its layers make.

    Args:
        layers: What the engine runs.
        shapes: (N, C, H, W) by name, N ignored.

    Raises:
        ValueError: Names the first tensor that cannot be as declared.
    """
    for layer in layers:
        for name in (*layer.inputs, layer.output):
            shape = shapes.get(name, ())
            if len(shape) != 4 or min(shape[1:]) < 1 or math.prod(shape[1:]) >= _LARGEST:
                raise ValueError(f'{name}: has no size (N, C, H, W) with C, H and W fixed: {shape}')
        expected = _expected(layer, [shapes[name][1:] for name in layer.inputs])
        if shapes[layer.output][1:] not in expected:
            raise ValueError(
                f'{layer.output}: declared as {shapes[layer.output][1:]}, but its layer makes '
                f'{expected[0] if expected else "nothing"}'
            )


def _expected(layer: Layer, inputs: list[Shape]) -> list[Shape]:
    """Return the (C, H, W) that a layer may make; none where its inputs do not fit."""
    channels, height, width = inputs[0]
    if isinstance(layer, StemConv | RealStem | SpikingConv | RealConv):
        made = len(layer.weight), *_sides((height, width), layer.geometry)[0]
        fits = layer.weight.shape[1] == channels and 0 not in layer.weight.shape
        if isinstance(layer, RealConv) and layer.stream is not None:
            fits = fits and inputs[1] == made
        return [made] if fits else []
    if isinstance(layer, PoolBits | PoolNumbers):
        return [(channels, *sides) for sides in _sides((height, width), layer.geometry)]
    if isinstance(layer, JoinBits | JoinNumbers):
        alike = all(other[1:] == (height, width) for other in inputs)
        return [(sum(other[0] for other in inputs), height, width)] if alike else []
    if isinstance(layer, RepeatBits | RepeatNumbers):
        return [(channels, height * layer.scale[0], width * layer.scale[1])]
    if isinstance(layer, AddNumbers):
        return [inputs[0]] if inputs[0] == inputs[1] else []
    if isinstance(layer, MeanNumbers):
        return [] if channels % layer.size else [(channels // layer.size, height, width)]
    assert isinstance(layer, Fire)
    return [(channels, height, width)]


def _sides(sides: tuple[int, int], geometry: Geometry) -> list[tuple[int, ...]]:
    """Return the possible heights and widths behind a window: rounded down, or up."""
    spans = [
        (kernel - 1) * dilation + 1
        for kernel, dilation in zip(geometry.kernel, geometry.dilation, strict=True)
    ]
    windows = [
        *zip(sides, geometry.padding, geometry.end_padding, spans, geometry.stride, strict=True)
    ]
    down = tuple((s + p + e - span) // stride + 1 for s, p, e, span, stride in windows)
    # But for a last window that would begin behind the image.
    up = tuple(
        min(-(-(s + p + e - span) // stride), (s + p - 1) // stride) + 1
        for s, p, e, span, stride in windows
    )
    return [down, up]
