"""The graph that every consumer reads: the engine, the reference, the exporters, the counts.

Two dialects share one data structure:

* the **captured** graph, as `capture` makes it from a PyTorch model: one node a layer, real-valued,
  with the layers' own parameters (see `CAPTURED_OPS`);
* the **lowered** graph, as the passes leave it: only operations that the engine knows
  (see `LOWERED_OPS`). Each of them ends in an *epilogue*: a short list of steps that a value walks
  through before it is stored.

A `Graph` is a list of `Node`s in execution order. A `Value` has a type, a number of channels and
the spatial shape that it had for the example input; the engine infers spatial shapes anew for the
shape that a session is opened with.

Imports NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np


class Type(IntEnum):
    """Element types of graph values. The numbers are part of the file format."""

    F32 = 0
    I32 = 1
    I16 = 2
    I8 = 3
    U8 = 4
    I4 = 5
    B1 = 6


@dataclass(eq=False)
class Value:
    """An edge of the graph: what one node writes and others read.

    Attributes:
        name: unique in its graph; made from the producing layer's path.
        type: element type.
        shape: (C, H, W) for the example input; feature vectors have H = W = 1.
    """

    name: str
    type: Type
    shape: tuple[int, int, int]

    @property
    def channels(self) -> int:
        return self.shape[0]


@dataclass(eq=False)
class Step:
    """One step of an epilogue. `params` are per-channel arrays, `attrs` scalars.

    `value` is the tensor that a reading step (`READING`) reads, or the one that a storing step
    writes.
    """

    kind: str
    params: dict[str, np.ndarray] = field(default_factory=dict)
    attrs: dict[str, int | float] = field(default_factory=dict)
    value: Value | None = None


@dataclass(eq=False)
class Node:
    """One operation. `path` is the dotted path of the layer that it came from, for people."""

    op: str
    path: str
    inputs: list[Value]
    outputs: list[Value]
    attrs: dict[str, int | float] = field(default_factory=dict)
    params: dict[str, np.ndarray] = field(default_factory=dict)
    epilogue: list[Step] = field(default_factory=list)


@dataclass(eq=False)
class Graph:
    """A program: nodes in execution order, one input value, the output values.

    Attributes:
        flat_outputs: for each output, whether users see it as (N, C) instead of (N, C, H, W).
        mean, std: per-channel normalisation of uint8 pixels, or None where the model's input is
            not an image: x = ((pixel / 255) - mean) / std, three float32 operations.
    """

    nodes: list[Node]
    input: Value
    outputs: list[Value]
    flat_outputs: list[bool]
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    metadata: dict[str, object] = field(default_factory=dict)

    def producer(self, value: Value) -> Node | None:
        """The node that writes `value`, or None for the graph's input."""
        return next((node for node in self.nodes if value in node.outputs), None)

    def consumers(self, value: Value) -> list[Node]:
        """The nodes that read `value`, in execution order."""
        return [node for node in self.nodes if value in node.inputs]


@dataclass(frozen=True)
class OpSpec:
    """What the file format says of a lowered operation: its code, attributes and tensors."""

    code: int
    attrs: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    epilogue: bool = False


_WINDOW = ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w")
_CONV = ("in_channels", "out_channels", *_WINDOW, "dilation_h", "dilation_w", "groups")

# Every tensor an operation or step names is optional only where its comment says so.
LOWERED_OPS: dict[str, OpSpec] = {
    # b1 -> dot products (i32) -> epilogue. weight: int8 +-1, (O, I/g, KH, KW).
    # pad_value is -1, 0 or +1: the value that a tap outside the image multiplies.
    "conv_b1": OpSpec(1, (*_CONV, "pad_value"), ("weight",), epilogue=True),
    # u8 -> sum of (q - zero_point) * w (i32) -> epilogue. weight: int8, (O, I/g, KH, KW).
    "conv_q8": OpSpec(2, (*_CONV, "zero_point"), ("weight",), epilogue=True),
    # The type stays: f32, i16, or b1 (where +1 wins). flip: uint8 (C,), optional: 1 inverts that
    # channel's bits after pooling. ceil_mode: the last window may stand over the edge.
    "max_pool": OpSpec(3, (*_WINDOW, "dilation_h", "dilation_w", "ceil_mode"), ("flip",)),
    # f32 -> f32: window sum row by row from its top left, times float32(1 / taps).
    # count_include_pad: taps in the padding (not those behind it, where ceil_mode leads) count.
    # i16 -> i16: floor(sum / taps), taps a power of two; no padding and no ceil_mode.
    "avg_pool": OpSpec(4, (*_WINDOW, "ceil_mode", "count_include_pad")),
    # f32 or b1 -> f32 (C, 1, 1): sum in the order of docs/numerics.md, divided by H * W.
    "global_avg_pool": OpSpec(5),
    # f32 or i16, or b1 as -1.0 and +1.0 -> epilogue.
    "pointwise": OpSpec(6, epilogue=True),
    # One or more maps of one type (f32, i16 or b1) and one size -> the same type: channel i is
    # channel index[i] of all the inputs' channels, one input behind the other. index: int32
    # (C_out,).
    "channels": OpSpec(7, (), ("index",)),
    # f32, or b1 where mode is 0 -> the same type. mode: 0 nearest, 1 bilinear. The size is that of
    # the second input where there is one (of any type, read for its size only), else
    # (scale_h * H, scale_w * W) where these are not 0, else (out_h, out_w).
    "resize": OpSpec(8, ("mode", "align_corners", "scale_h", "scale_w", "out_h", "out_w")),
    # f32 or b1 -> the same type: (C, H, W) to (C / f^2, f * H, f * W), torch.nn.PixelShuffle.
    "pixel_shuffle": OpSpec(9, ("factor",)),
    # f32 -> f32 (C, out_h, out_w): window i of n reaches from floor(i * size / n) to
    # ceil((i + 1) * size / n). take_max: its maximum, else its mean.
    "adaptive_pool": OpSpec(10, ("out_h", "out_w", "take_max")),
    # u8, i16 or i32 -> sum of (x - zero_point) * w (i32, modulo 2^32) -> epilogue, by adding,
    # subtracting and shifting alone. weight: int8, (O, I/g, KH, KW). zero_point: 0 but for u8.
    "conv_shift": OpSpec(11, (*_CONV, "zero_point"), ("weight",), epilogue=True),
    # i16 -> i32 (C, 1, 1): the sum of the pixels, of which there must be `area`.
    "global_sum": OpSpec(12, ("area",)),
}

# Steps of an epilogue. `v` is the running value: int (a convolution's sum) or float32. All arrays
# are per output channel. Storing steps leave `v` as it is.
STEPS: dict[str, OpSpec] = {
    # v = float32(v) * scale + bias, two roundings. float32 arrays.
    "affine": OpSpec(1, (), ("scale", "bias")),
    # v = v + value: f32 to f32, i4 to int, or i16 to int with saturation to int16. An f32 value may
    # have one channel, or one pixel: it is then the same for all channels, or for all pixels of an
    # image.
    "add": OpSpec(2),
    # u = v + shift_in; v = (u >= 0 ? u : slope * u) + shift_out. float32 arrays.
    "rprelu": OpSpec(3, (), ("shift_in", "slope", "shift_out")),
    # v = v >= 0 ? v : slope * v. float32 array.
    "prelu": OpSpec(4, (), ("slope",)),
    # int: v = clip((v * multiplier + offset) >> shift, -8, 7), int32 arithmetic. int32 arrays.
    "quant4_shift": OpSpec(5, ("shift",), ("multiplier", "offset")),
    # int: u = flip ? -v : v; v = -8 + number of cuts (ascending, 15 a channel) that are <= u.
    # cuts: int32 (C, 15); flip: uint8.
    "quant4_ladder": OpSpec(6, (), ("cuts", "flip")),
    # write v to `value`, whose type is f32, i4, i16 or i32.
    "store": OpSpec(7),
    # int: bit = (low <= v <= high) != flip, write to `value` (b1). int32, int32, uint8 arrays.
    "threshold": OpSpec(8, (), ("low", "high", "flip")),
    # f32: bit = v >= cut, write to `value` (b1); NaN gives 0. float32 array.
    "sign": OpSpec(9, (), ("cut",)),
    # f32: q = clip(rint(v * inv_scale) + zero_point, 0, levels), write to `value` (u8). levels: 255
    # of 8 bits, 15 of 4.
    "quant8": OpSpec(10, ("inv_scale", "zero_point", "levels")),
    # v = v * value, both f32; the value's shape as for `add`.
    "mul": OpSpec(11),
    # f32: v = v < minimum ? minimum : v; v = v > maximum ? maximum : v. Both finite or infinite.
    "clip": OpSpec(12, ("minimum", "maximum")),
    # f32: v = 1 / (1 + exp(-v)) as docs/numerics.md computes it.
    "sigmoid": OpSpec(13),
    # int: v = sat16(sum of signs_d * shift(v, shifts_d)): `shift` is exact to the left, and rounds
    # down to the right. int32 arrays (C, digits), shifts -31..15, signs -1, 0 or +1.
    "shift_sum": OpSpec(14, ("digits",), ("shifts", "signs")),
    # int: u = sat16(v + shift_in); v = sat16((u >= 0 ? u : sat16(sum of signs_d * shift(u,
    # shifts_d))) + shift_out). int32 arrays, (C,) and (C, digits).
    "shift_prelu": OpSpec(15, ("digits",), ("shift_in", "shifts", "signs", "shift_out")),
    # f32: q = clip(rint(v * inv_scale), -32768, 32767), write to `value` (i16); NaN gives 0.
    "quant16": OpSpec(16, ("inv_scale",)),
    # int: v = v + bias, modulo 2^32. int32 array.
    "bias": OpSpec(17, (), ("bias",)),
}

# steps that read a value, which stands among the node's inputs
READING = ("add", "mul")

# attrs that hold a float32 (stored as its bits); every other one is an int32
FLOAT_ATTRS = frozenset({"inv_scale", "minimum", "maximum"})

MAX_STEPS = 12  # of an epilogue

INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def conv_output_size(
    size: int, kernel: int, stride: int, pad: int, dilation: int, ceil_mode: int = 0
) -> int:
    """Output length of a convolution or pooling window along one axis; below 1 if none fits."""
    span = size + 2 * pad - dilation * (kernel - 1) - 1
    if not ceil_mode or span < 0:
        return span // stride + 1
    length = -(-span // stride) + 1
    # no window starts behind the image and its left padding
    return length - 1 if (length - 1) * stride >= size + pad else length


@dataclass(frozen=True)
class CapturedSpec:
    """What a captured node holds. `params` are float64 but for integer weights; those that end in
    `?` may be missing, and attributes that end in it are then 0: only counts read these.
    `weight_bits` is the precision of `weight`; nodes with an attribute `bits` say it themselves."""

    attrs: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    weight_bits: int | None = None


_LINEAR = ("in_channels", "out_channels")
_QUANT = ("bits", "zero_point", "inv_input_scale")

# The captured dialect: one node a layer, in the model's order. Values are f32, or b1 behind a sign.
# The last three have no lowering: they stand for what the compiler refuses, so that counts and
# summaries work on models that cannot be compiled yet.
CAPTURED_OPS: dict[str, CapturedSpec] = {
    # dot of +-1 with +-1, times scale, plus bias. weight: int8 +-1, (O, I/g, KH, KW) or (O, I).
    "binary_conv2d": CapturedSpec((*_CONV, "pad_value"), ("weight", "scale", "bias?"), 1),
    "binary_linear": CapturedSpec(_LINEAR, ("weight", "scale", "bias?"), 1),
    # sum of (q - zero_point) * weight, times scale (float32 products of both scales), plus bias.
    # bits: of q and weight, 8 or 4.
    "quant_conv2d": CapturedSpec((*_CONV, *_QUANT), ("weight", "scale", "bias?"), 8),
    "quant_linear": CapturedSpec((*_LINEAR, *_QUANT), ("weight", "scale", "bias?"), 8),
    # (x - mean) / sqrt(var + eps) * gain + bias
    "batch_norm": CapturedSpec(("eps",), ("gain", "bias", "mean", "var")),
    # bits of x + bias >= 0. scaled: 1 where the layer multiplies x by a positive factor before.
    "sign": CapturedSpec(("scaled?",), ("bias?",)),
    # power_of_two: 1 where the layer has no other slopes, whatever it learns.
    "rprelu": CapturedSpec(("power_of_two?",), ("shift_in", "slope", "shift_out")),
    "prelu": CapturedSpec(("power_of_two?",), ("slope",)),
    "relu": CapturedSpec(),
    "add": CapturedSpec(),
    # (clip(rint(a / step), -8, 7) + clip(rint(b / step), -8, 7)) * step
    "int4_add": CapturedSpec(("step",)),
    "max_pool": CapturedSpec((*_WINDOW, "dilation_h", "dilation_w", "ceil_mode")),
    "avg_pool": CapturedSpec((*_WINDOW, "ceil_mode", "count_include_pad")),
    "global_avg_pool": CapturedSpec(),
    "adaptive_pool": CapturedSpec(("out_h", "out_w", "take_max")),
    # maps are added and multiplied with the broadcasting of the steps of that name
    "mul": CapturedSpec(),
    # x * scale + bias, constants a channel
    "affine": CapturedSpec((), ("scale", "bias")),
    "clip": CapturedSpec(("minimum", "maximum")),
    "sigmoid": CapturedSpec(),
    "channels": CapturedSpec((), ("index",)),
    "resize": CapturedSpec(("mode", "align_corners", "scale_h", "scale_w", "out_h", "out_w")),
    "pixel_shuffle": CapturedSpec(("factor",)),
    # (C, H, W) -> (C * H * W, 1, 1)
    "flatten": CapturedSpec(),
    "identity": CapturedSpec(),
    # bits: of layers whose ranges are dynamic
    "conv2d": CapturedSpec((*_CONV, "bits?"), ("weight", "bias?"), 32),
    "linear": CapturedSpec((*_LINEAR, "bits?"), ("weight", "bias?"), 32),
    "unsupported": CapturedSpec(),
}
