"""How each call of a function or method becomes captured layers.

`read_call` answers for one call, from its arguments as PyTorch takes them. It raises `CallError`,
with the reason and a way out, for a call that cannot be compiled.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, fx

from signbit.compiler import layers
from signbit.compiler.ir import Value
from signbit.compiler.layers import OUTSIDE, Layer, array, known_layers, pair
from signbit.compiler.tracing import Extent


class CallError(Exception):
    """Why a call cannot be compiled."""


@dataclass
class Call:
    """One call.

    Attributes:
        name: of the function or method.
        args, kwargs: a map is the `fx.Node` that computes it, a constant its tensor, a size an
            `Extent`.
        shapes: of the maps.
        flattened: of a map [N, C, P] that is one [N, C, H, W] with its pixels in one row: that one.
    """

    name: str
    args: tuple
    kwargs: dict
    shapes: dict[fx.Node, tuple[int, ...]]
    flattened: Callable[[fx.Node], Value | None]

    def shape(self, x: fx.Node) -> tuple[int, ...]:
        return self.shapes[x]


Reading = tuple[Layer, list[fx.Node | Value]]


def read_call(call: Call) -> Reading:
    """The layer that a call is, and the maps that it reads. Raises CallError."""
    name = call.name.strip("_")
    reader = _FUNCTIONS.get(name)
    if reader is None:
        raise CallError(f"it calls {call.name}, which the compiler does not know: {_way_out(name)}")
    args, kwargs = call.args, dict(call.kwargs)
    if "input" in kwargs:
        args = (kwargs.pop("input"), *args)
    try:
        inspect.signature(reader).bind(call, *args, **kwargs)
    except TypeError as error:
        raise CallError(
            f"it calls {call.name} in a way that the compiler does not know: {error}"
        ) from None
    try:
        layer, inputs = reader(call, *args, **kwargs)
    except CallError as refused:
        raise CallError(f"it calls {call.name}: {refused}") from None
    layer.refused = [f"it calls {call.name}: {reason}" for reason in layer.refused]
    return layer, inputs


_SMOOTH = (
    "celu elu gelu glu logsigmoid mish selu softplus softsign tanh threshold exp sqrt pow rsqrt "
    "log abs erf"
)
_INSTEAD = {
    **dict.fromkeys(
        _SMOOTH.split(),
        "the layer torch.nn.PReLU, torch.nn.Hardswish, torch.nn.SiLU or signbit.nn.RPReLU",
    ),
    **dict.fromkeys(
        ("to", "float", "half", "double", "type"), "float32 throughout, and leave it out"
    ),
    **dict.fromkeys(("softmax", "log_softmax", "softmin"), OUTSIDE.removeprefix("use ")),
    **dict.fromkeys(("argmax", "argmin", "topk", "sort"), OUTSIDE.removeprefix("use ")),
    "pad": "the padding of the layer behind it",
    "sign": "the layer signbit.nn.Sign",
    "conv2d": "the layer signbit.nn.BinaryConv2d (after a Sign) or signbit.nn.QuantConv2d",
    "conv_transpose2d": "the layers torch.nn.Upsample or torch.nn.PixelShuffle, and a convolution",
    "linear": "the layer signbit.nn.BinaryLinear (after a Sign) or signbit.nn.QuantLinear",
    "batch_norm": "the layer torch.nn.BatchNorm2d",
    "max": "torch.nn.functional.adaptive_max_pool2d(x, 1) for the greatest pixel of a channel",
    **dict.fromkeys(
        ("max_pool2d_with_indices", "adaptive_max_pool2d_with_indices"), "return_indices=False"
    ),
    "sum": "x.mean((2, 3)) for the mean of a channel, x + y for two maps",
    "pixel_unshuffle": "a convolution with a stride",
    **dict.fromkeys(
        ("matmul", "bmm", "mm", "einsum", "scaled_dot_product_attention"),
        "binary or 8-bit layers: a product of two activations cannot be compiled",
    ),
}


def _way_out(name: str) -> str:
    """What to write instead of a call of the function `name`."""
    use = _INSTEAD.get(name)
    return (
        f"use {use}"
        if use
        else f"docs/operations.md lists the calls, the layers are {known_layers()}"
    )


# --- element-wise ---


def _map(x: object) -> fx.Node:
    if not isinstance(x, fx.Node):
        raise CallError("its first argument is not a map")
    return x


def _simple(make: Callable[..., Layer]) -> Callable[..., Reading]:
    """A reader of f(x, inplace=False)."""

    def read(call: Call, x: object, inplace: bool = False) -> Reading:
        return make(), [_map(x)]

    return read


def _number(value: object, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise CallError("its bounds must be numbers")
    return float(value)


def _clamp(call: Call, x: object, min: object = None, max: object = None) -> Reading:
    return layers.clip(_number(min, -math.inf), _number(max, math.inf)), [_map(x)]


def _clamp_min(call: Call, x: object, min: object) -> Reading:
    return _clamp(call, x, min)


def _clamp_max(call: Call, x: object, max: object) -> Reading:
    return _clamp(call, x, None, max)


def _hardtanh(
    call: Call, x: object, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Reading:
    return _clamp(call, x, min_val, max_val)


def _leaky_relu(
    call: Call, x: object, negative_slope: float = 0.01, inplace: bool = False
) -> Reading:
    return layers.leaky_relu(_number(negative_slope, 0.01)), [_map(x)]


def _prelu(call: Call, x: object, weight: object) -> Reading:
    if not isinstance(weight, Tensor):
        raise CallError("its slopes must be a parameter")
    return Layer("prelu", params={"slope": array(weight).reshape(-1)}), [_map(x)]


def _dropout(
    call: Call, x: object, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Reading:
    if training:
        raise CallError("it would drop numbers in evaluation too: use training=self.training")
    return Layer("identity"), [_map(x)]


# --- arithmetic ---


def _constant(call: Call, x: fx.Node, value: object) -> np.ndarray | None:
    """A number, or numbers a channel of `x`, as float64 [1] or [C]; None if `value` is a map."""
    if isinstance(value, fx.Node):
        return None
    if isinstance(value, Extent) and value.source is not None and value.axis == 1:
        value = value.number  # channels
    if isinstance(value, Extent):
        raise CallError("its number depends on the image's size: use a constant")
    if isinstance(value, Tensor):
        numbers, shape = array(value), call.shape(x)
        fits = numbers.ndim <= len(shape)
        aligned = (1,) * (len(shape) - numbers.ndim) + numbers.shape
        fits = fits and all(n in (1, shape[1]) if i == 1 else n == 1 for i, n in enumerate(aligned))
        if not fits:
            want = [1, shape[1], *(1,) * (len(shape) - 2)]
            raise CallError(f"its constant is {list(value.shape)}: give one number, or {want}")
        numbers = numbers.reshape(-1)
    elif isinstance(value, int | float):
        numbers = np.array([value], np.float64)
    else:
        raise CallError(f"it reads a {type(value).__name__}")
    if not np.isfinite(numbers).all():
        raise CallError("its constant is not finite")
    return numbers


def _check_maps(call: Call, a: fx.Node, b: fx.Node) -> None:
    """Two maps meet: one of them must have the shape of the result."""
    first, second = call.shape(a), call.shape(b)
    if len(first) != len(second):
        raise CallError(
            f"it meets maps of {list(first)} and {list(second)}: give both [N, C, H, W], as in "
            "gate[:, :, None, None]"
        )
    for full, other in ((first, second), (second, first)):
        channels = other[1] in (1, full[1])
        pixels = other[2:] in (full[2:], (1,) * len(full[2:]))
        if full[0] == other[0] and channels and pixels:
            return
    raise CallError(
        f"it meets maps of {list(first)} and {list(second)}; one of them must have the shape of "
        "the result, the other the same, one channel, or one pixel"
    )


def _add(call: Call, x: object, other: object, *, alpha: float = 1) -> Reading:
    if alpha != 1:
        raise CallError("alpha is not supported: multiply before")
    if not isinstance(x, fx.Node):
        x, other = other, x
    bias = _constant(call, _map(x), other)
    if bias is not None:
        return layers.affine(bias=bias), [x]
    _check_maps(call, x, other)
    return Layer("add"), [x, other]


def _sub(call: Call, x: object, other: object, *, alpha: float = 1) -> Reading:
    if alpha != 1:
        raise CallError("alpha is not supported: multiply before")
    if not isinstance(x, fx.Node):
        return layers.affine(-1.0, _constant(call, _map(other), x)), [other]
    bias = _constant(call, x, other)
    if bias is not None:
        return layers.affine(bias=-bias), [x]
    _check_maps(call, x, other)
    return Layer("add", before=[layers.affine(-1.0)]), [x, other]


def _mul(call: Call, x: object, other: object) -> Reading:
    if not isinstance(x, fx.Node):
        x, other = other, x
    scale = _constant(call, _map(x), other)
    if scale is not None:
        return layers.affine(scale), [x]
    _check_maps(call, x, other)
    return Layer("mul"), [x, other]


def _div(call: Call, x: object, other: object, *, rounding_mode: str | None = None) -> Reading:
    if rounding_mode is not None:
        raise CallError("rounding_mode is not supported")
    divisor = _constant(call, x, other) if isinstance(x, fx.Node) else None
    if divisor is None:
        raise CallError("a map can only be divided by constants: multiply instead")
    if not divisor.all():
        raise CallError("it divides by 0")
    return layers.affine(1 / divisor), [x]


def _neg(call: Call, x: object) -> Reading:
    return layers.affine(-1.0), [_map(x)]


# --- pooling and sizes ---


def _follows_size(*values: object) -> bool:
    """Whether any of a pooling window's arguments is read from a map's size."""
    return any(isinstance(n, Extent) for value in values for n in pair(value))


def _global(call: Call, x: fx.Node, kernel: object, padding: object, take_max: bool) -> Layer:
    """Pooling with a window that follows an image's size: it must cover all of its own map."""
    rows, columns = pair(kernel)
    shape = call.shape(x)
    whole = all(
        isinstance(e, Extent)
        and e.source is not None
        and (e.factor, e.axis in (2, 3)) == (1, True)
        and call.shape(e.source)[2:] == shape[2:]
        for e in (rows, columns)
    )
    if not whole or pair(padding) != (0, 0):
        raise CallError(
            "its window follows the image's size: use constants, or torch.nn.AdaptiveAvgPool2d"
        )
    if (rows.axis, columns.axis) == (2, 3):
        return layers.adaptive_pool(1, take_max)
    if rows.axis != columns.axis:
        raise CallError("its window has the map's width for its rows: use x.shape[2:]")
    # Step by step, so that a map of no other size comes to one pixel.
    make = layers.max_pool if take_max else layers.avg_pool
    layer = make(rows.number, stride=1)
    layer.whole = True
    return layer


def _max_pool2d(
    call: Call,
    x: object,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    dilation: object = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Reading:
    stride = stride or kernel_size
    if _follows_size(kernel_size, stride, padding, dilation):
        if pair(dilation) != (1, 1) or return_indices:
            raise CallError("its window follows the image's size: use x.amax((2, 3))")
        return _global(call, _map(x), kernel_size, padding, True), [x]
    window = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return layers.max_pool(*window), [_map(x)]


def _avg_pool2d(
    call: Call,
    x: object,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Reading:
    stride = stride or kernel_size
    if _follows_size(kernel_size, stride, padding):
        if divisor_override is not None:
            raise CallError("its window follows the image's size: use x.mean((2, 3))")
        return _global(call, _map(x), kernel_size, padding, False), [x]
    window = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return layers.avg_pool(*window), [_map(x)]


def _adaptive_avg_pool2d(call: Call, x: object, output_size: object) -> Reading:
    return _adaptive(call, x, output_size, False)


def _adaptive_max_pool2d(
    call: Call, x: object, output_size: object, return_indices: bool = False
) -> Reading:
    if return_indices:
        raise CallError("return_indices=True is not supported: use return_indices=False")
    return _adaptive(call, x, output_size, True)


def _adaptive(call: Call, x: object, output_size: object, take_max: bool) -> Reading:
    if _follows_size(output_size):
        raise CallError("its size follows the image's: use constants, or interpolate(size=...)")
    return layers.adaptive_pool(output_size, take_max), [_map(x)]


def _mean(call: Call, x: object, dim: object = None, keepdim: bool = False) -> Reading:
    return _over_pixels(call, _map(x), dim, Layer("global_avg_pool"))


def _amax(call: Call, x: object, dim: object = (), keepdim: bool = False) -> Reading:
    return _over_pixels(call, _map(x), dim, layers.adaptive_pool(1, True))


def _over_pixels(call: Call, x: fx.Node, dim: object, layer: Layer) -> Reading:
    rank = len(call.shape(x))
    axes = [] if dim is None else list(dim) if isinstance(dim, tuple | list) else [dim]
    axes = sorted(axis % rank for axis in axes)
    if rank == 4 and axes == [2, 3]:
        return layer, [x]
    if rank == 3 and axes == [2]:
        whole = call.flattened(x)
        if whole is not None:
            return layer, [whole]
    raise CallError("it is only known over all pixels of [N, C, H, W], as in x.mean((2, 3))")


def _interpolate(
    call: Call,
    x: object,
    size: object = None,
    scale_factor: object = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Reading:
    if antialias:
        raise CallError("antialias=True is not supported: use antialias=False")
    if scale_factor is not None and _follows_size(scale_factor):
        raise CallError("its scale follows the image's size: use size=other.shape[2:]")
    if size is None or not _follows_size(size):
        return layers.resize(size, scale_factor, mode, align_corners), [_map(x)]
    height, width = pair(size)
    known = all(
        isinstance(e, Extent) and e.source is not None and e.axis == axis
        for e, axis in ((height, 2), (width, 3))
    )
    if known and height.source is width.source:
        if height.factor == width.factor == 1:
            return layers.resize(None, None, mode, align_corners), [_map(x), height.source]
        if height.source is x:
            factors = height.factor, width.factor
            return layers.resize(None, factors, mode, align_corners), [x]
    raise CallError(
        "its size is computed from the image's: use scale_factor=2, or size=other.shape[2:] of the "
        "map that it is to match"
    )


_FUNCTIONS: dict[str, Callable[..., Reading]] = {
    "relu": _simple(lambda: Layer("relu")),
    "relu6": _simple(lambda: layers.clip(0, 6)),
    "sigmoid": _simple(lambda: Layer("sigmoid")),
    "hardsigmoid": _simple(layers.hardsigmoid),
    "hardswish": _simple(layers.hardswish),
    "silu": _simple(layers.silu),
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    **dict.fromkeys(
        (
            "dropout",
            "dropout1d",
            "dropout2d",
            "dropout3d",
            "alpha_dropout",
            "feature_alpha_dropout",
        ),
        _dropout,
    ),
    **dict.fromkeys(("add", "iadd"), _add),
    **dict.fromkeys(("sub", "isub", "subtract"), _sub),
    **dict.fromkeys(("mul", "imul", "multiply"), _mul),
    **dict.fromkeys(("div", "truediv", "itruediv", "divide", "true_divide"), _div),
    **dict.fromkeys(("neg", "negative"), _neg),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "adaptive_max_pool2d": _adaptive_max_pool2d,
    "mean": _mean,
    "amax": _amax,
    **dict.fromkeys(("interpolate", "upsample"), _interpolate),
}
