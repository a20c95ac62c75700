"""The golden meaning of every operation: a NumPy interpreter of lowered graphs.

Written to be read beside `docs/numerics.md`; the engine must agree with it bit for bit.
Convolutions are matrix products in floating point wherever the mantissa holds every partial sum,
and so exact integers in whatever order the library adds them.

Imports NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from signbit.compiler.ir import INT16_MAX, INT16_MIN, Graph, Node, Step, Type, Value
from signbit.compiler.shapes import resized, window_size

Real = type[np.floating]
_PARTIAL_SUMS = 16


def run(
    graph: Graph,
    x: np.ndarray,
    collect: bool = False,
    precision: Real = np.float32,
    settle: Callable[[Value, np.ndarray], np.ndarray] | None = None,
    saturations: dict[str, int] | None = None,
) -> list[np.ndarray] | tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Evaluate a lowered graph.

    Args:
        graph: any lowered graph; shapes follow from `x`.
        x: uint8 pixels [N, H, W, C], or real numbers [N, C, H, W] that are normalised already.
        collect: also return every value by name: b1 as uint8 0/1, others at their own type.
        precision: float64 evaluates the functions behind the program; programs mean float32.
        settle: called with every value that a node gives, in the order of execution; what it
            returns takes that value's place.
        saturations: receives, by the path of each node that saturates at all, how many of its
            numbers were brought back into 16 bits, or, of sums, left 32 bits.

    Returns:
        The outputs, (N, C) where the graph says flat, else (N, C, H, W).

    Raises ValueError for an input of another type or number of channels.
    """
    values = {graph.input: load_input(graph, x, precision)}
    for node in graph.nodes:
        with _counting_saturations(node, saturations):
            _OPS[node.op](node, values, precision)
        if settle is not None:
            values.update({value: settle(value, values[value]) for value in node.outputs})
    outputs = []
    for value, flat in zip(graph.outputs, graph.flat_outputs, strict=True):
        array = values[value]
        outputs.append(array.reshape(array.shape[:2]) if flat else array)
    if not collect:
        return outputs
    return outputs, {value.name: array for value, array in values.items()}


def count_saturations(graph: Graph, batches: Iterable[np.ndarray]) -> dict[str, int]:
    """How many numbers each layer of an integer program saturates over batches of its inputs.

    By the node's path; layers that saturate nothing are left out. Raises ValueError as `run` does.
    """
    found: dict[str, int] = {}
    for batch in batches:
        run(graph, batch, saturations=found)
    return found


_saturated: ContextVar[Callable[[int], None] | None] = ContextVar("saturated", default=None)


@contextmanager
def _counting_saturations(node: Node, found: dict[str, int] | None) -> Iterator[None]:
    """While on, what saturates is counted for the node."""
    if found is None:
        yield
        return

    def count(numbers: int) -> None:
        if numbers:
            found[node.path] = found.get(node.path, 0) + numbers

    token = _saturated.set(count)
    try:
        yield
    finally:
        _saturated.reset(token)


def load_input(graph: Graph, x: np.ndarray, precision: Real = np.float32) -> np.ndarray:
    """The graph's input [N, C, H, W] from what users give. Raises ValueError as `run` does."""
    channels = graph.input.channels
    if x.ndim != 4 or x.shape[3 if x.dtype == np.uint8 else 1] != channels:
        raise ValueError(
            f"input must be uint8 [N, H, W, {channels}] or float32 [N, {channels}, H, W], got "
            f"{x.dtype} {list(x.shape)}"
        )
    if x.dtype != np.uint8:
        return x.astype(precision, copy=False)
    if graph.mean is None:
        raise ValueError("this program has no preprocessing: give it float32 [N, C, H, W]")
    pixels = x.transpose(0, 3, 1, 2).astype(precision)
    mean, std = (a.astype(precision).reshape(1, -1, 1, 1) for a in (graph.mean, graph.std))
    return (pixels / precision(255) - mean) / std


# --- operations ---


def _conv_b1(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    signs = values[node.inputs[0]].astype(np.float32) * 2 - 1
    # |sum| <= 65,535, far below 2^24
    sums = convolve(signs, node.params["weight"].astype(np.float32), node, node.attrs["pad_value"])
    _walk(node, sums.astype(np.int64), values, precision)


def _conv_q8(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    weight = node.params["weight"]
    fits = (
        int(np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1).max()) * 255 < 1 << 24
    )
    kind = np.float32 if fits else np.float64
    centred = values[node.inputs[0]].astype(kind) - node.attrs["zero_point"]
    sums = convolve(centred, weight.astype(kind), node, 0)
    _walk(node, sums.astype(np.int64), values, precision)


def _conv_shift(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    # in float64, exact to 2^53: the program means these sums modulo 2^32
    centred = values[node.inputs[0]].astype(np.float64) - node.attrs["zero_point"]
    sums = convolve(centred, node.params["weight"].astype(np.float64), node, 0)
    _walk(node, _wrapped(sums.astype(np.int64)), values, precision)


def _wrapped(v: np.ndarray) -> np.ndarray:
    """Integers modulo 2^32, as int32 has them."""
    return _counted_as_kept(v, v.astype(np.int32).astype(np.int64))


def _counted_as_kept(v: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """`kept`, having counted the numbers that are not what they were."""
    count = _saturated.get()
    if count is not None:
        count(int((kept != v).sum()))
    return kept


def convolve(x: np.ndarray, weight: np.ndarray, node: Node, pad_value: int) -> np.ndarray:
    """Cross-correlation [N, O, H', W'] of x [N, I, H, W] with weight [O, I/g, KH, KW], with the
    window, stride, dilation and groups of the node's attributes."""
    a = node.attrs
    windows = _taps(x, node, pad_value)  # [KH*KW][N, I, H', W']
    n, _, height, width = windows[0].shape
    groups, per_group = a["groups"], a["out_channels"] // a["groups"]
    fan_in = weight[0].size
    columns = np.stack(windows, 2)  # [N, I, KH*KW, H', W']
    columns = columns.reshape(n, groups, fan_in, height * width)
    matrices = weight.reshape(groups, per_group, fan_in)
    return np.matmul(matrices[None], columns).reshape(n, -1, height, width)


def _taps(x: np.ndarray, node: Node, pad_value: float) -> list[np.ndarray]:
    """For each tap, row by row, what it sees of x [N, C, H, W] at every output pixel."""
    a = node.attrs
    dilation_h, dilation_w = a.get("dilation_h", 1), a.get("dilation_w", 1)
    height, width = window_size(node, x.shape[2], x.shape[3])
    # in ceil mode the last window reaches over the padding too
    last_h = (height - 1) * a["stride_h"] + dilation_h * (a["kernel_h"] - 1) + 1
    last_w = (width - 1) * a["stride_w"] + dilation_w * (a["kernel_w"] - 1) + 1
    behind_h = max(last_h - x.shape[2] - a["pad_h"], 0)
    behind_w = max(last_w - x.shape[3] - a["pad_w"], 0)
    pads = ((0, 0), (0, 0), (a["pad_h"], behind_h), (a["pad_w"], behind_w))
    x = np.pad(x, pads, constant_values=pad_value) if max(map(max, pads)) else x
    found = []
    for row in range(a["kernel_h"]):
        for column in range(a["kernel_w"]):
            top, left = row * dilation_h, column * dilation_w
            bottom = top + (height - 1) * a["stride_h"] + 1
            right = left + (width - 1) * a["stride_w"] + 1
            found.append(x[:, :, top : bottom : a["stride_h"], left : right : a["stride_w"]])
    return found


def _max_pool(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    x = values[node.inputs[0]]
    outside = {Type.B1: 0, Type.I16: INT16_MIN}.get(node.outputs[0].type, -np.inf)
    windows = _taps(x, node, outside)
    m = np.full_like(windows[0], outside)
    height, width = node.attrs["kernel_h"], node.attrs["kernel_w"]
    # column by column: of zeros of both signs, the first that is met stays
    for tap in (row * width + column for column in range(width) for row in range(height)):
        m = np.where(windows[tap] > m, windows[tap], m)
    if "flip" in node.params:
        m = m ^ node.params["flip"].reshape(1, -1, 1, 1)
    values[node.outputs[0]] = m


def _avg_pool(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    x, a = values[node.inputs[0]], node.attrs
    if node.inputs[0].type == Type.I16:
        total = sum(tap.astype(np.int64) for tap in _taps(x, node, 0))
        taps = a["kernel_h"] * a["kernel_w"]
        values[node.outputs[0]] = (total // taps).astype(np.int16)
        return
    inside = np.ones((1, 1, *x.shape[2:]), bool)
    total = 0
    for tap, sees in zip(_taps(x, node, 0), _taps(inside, node, False), strict=True):
        total = np.where(sees, total + tap, total)
    rows = _counted(x.shape[2], total.shape[2], a, "h")
    columns = _counted(x.shape[3], total.shape[3], a, "w")
    taps = (rows[:, None] * columns[None, :]).astype(precision)
    values[node.outputs[0]] = (total * (precision(1) / taps)).astype(precision, copy=False)


def _counted(size: int, length: int, a: dict[str, int | float], axis: str) -> np.ndarray:
    """How many taps of each window along an axis an average divides by."""
    pad = a[f"pad_{axis}"]
    start = np.arange(length) * a[f"stride_{axis}"] - pad
    end = np.minimum(start + a[f"kernel_{axis}"], size + pad)
    if not a["count_include_pad"]:
        start, end = np.maximum(start, 0), np.minimum(end, size)
    return end - start


def _adaptive_pool(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    x, height, width = values[node.inputs[0]], node.attrs["out_h"], node.attrs["out_w"]
    y = np.empty((*x.shape[:2], height, width), precision)
    for i, j in np.ndindex(height, width):
        rows = range(i * x.shape[2] // height, -(-(i + 1) * x.shape[2] // height))
        columns = range(j * x.shape[3] // width, -(-(j + 1) * x.shape[3] // width))
        window = [x[:, :, row, column] for row in rows for column in columns]
        m = np.full(x.shape[:2], -np.inf if node.attrs["take_max"] else 0, precision)
        for tap in window:
            m = np.where(tap > m, tap, m) if node.attrs["take_max"] else m + tap
        if not node.attrs["take_max"]:
            m = m * (precision(1) / precision(len(window)))
        y[:, :, i, j] = m
    values[node.outputs[0]] = y


def _global_avg_pool(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    x = values[node.inputs[0]]
    area = precision(x.shape[2] * x.shape[3])
    if node.inputs[0].type == Type.B1:
        total = (2 * x.sum((2, 3), dtype=np.int64) - x.shape[2] * x.shape[3]).astype(precision)
    else:
        total = _sum_in_order(x)
    values[node.outputs[0]] = (total / area)[:, :, None, None]


def _global_sum(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    total = values[node.inputs[0]].sum((2, 3), dtype=np.int64, keepdims=True)
    values[node.outputs[0]] = _wrapped(total).astype(np.int32)


def _sum_in_order(x: np.ndarray) -> np.ndarray:
    """Sum of each plane of x [N, C, H, W] in 16 partial sums by column, then pairwise."""
    sums = np.zeros((*x.shape[:2], _PARTIAL_SUMS), x.dtype)
    for y in range(x.shape[2]):
        for start in range(0, x.shape[3], _PARTIAL_SUMS):
            piece = x[:, :, y, start : start + _PARTIAL_SUMS]
            sums[:, :, : piece.shape[2]] += piece
    half = _PARTIAL_SUMS // 2
    while half:
        sums = sums[:, :, :half] + sums[:, :, half : 2 * half]
        half //= 2
    return sums[:, :, 0]


def _pointwise(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    x = values[node.inputs[0]]
    if node.inputs[0].type == Type.B1:
        x = x.astype(precision) * 2 - 1
    elif node.inputs[0].type == Type.I16:
        x = x.astype(np.int64)
    _walk(node, x, values, precision)


def _channels_of(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    x = np.concatenate([values[value] for value in node.inputs], 1)
    values[node.outputs[0]] = x[:, node.params["index"]]


def _resize(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    x = values[node.inputs[0]]
    like = values[node.inputs[1]].shape[2:] if len(node.inputs) > 1 else None
    height, width = resized(node, x.shape[2:], like)
    if node.attrs["mode"] == 0:
        rows, columns = nearest(x.shape[2], height), nearest(x.shape[3], width)
        values[node.outputs[0]] = x[:, :, rows][:, :, :, columns]
        return
    corners = node.attrs["align_corners"]
    y0, y1, gy, fy = _between(x.shape[2], height, corners, precision)
    x0, x1, gx, fx = _between(x.shape[3], width, corners, precision)
    gy, fy = gy[:, None], fy[:, None]
    top, bottom = x[:, :, y0], x[:, :, y1]
    top = top[..., x0] * gx + top[..., x1] * fx
    bottom = bottom[..., x0] * gx + bottom[..., x1] * fx
    values[node.outputs[0]] = top * gy + bottom * fy


def nearest(size: int, length: int) -> np.ndarray:
    """Of each of `length` outputs along an axis of `size`: which row or column it reads.

    PyTorch's rule for float32, at any precision of the numbers themselves.
    """
    step = np.float32(size) / np.float32(length)
    at = np.arange(length, dtype=np.float32) * step
    return np.minimum(at.astype(np.int64), size - 1)


def _between(
    size: int, length: int, align_corners: int, precision: Real
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each output along an axis: its two neighbours, and their weights."""
    at = np.arange(length, dtype=np.float64)
    if align_corners:
        s = at * ((size - 1) / (length - 1)) if length > 1 else np.zeros(1)
    else:
        s = np.maximum((at + 0.5) * (size / length) - 0.5, 0)
    first = np.minimum(np.floor(s).astype(np.int64), size - 1)
    second = np.minimum(first + 1, size - 1)
    return first, second, (1 - (s - first)).astype(precision), (s - first).astype(precision)


def _pixel_shuffle(node: Node, values: dict[Value, np.ndarray], precision: Real) -> None:
    x, f = values[node.inputs[0]], node.attrs["factor"]
    n, channels, height, width = x.shape
    x = x.reshape(n, channels // f**2, f, f, height, width).transpose(0, 1, 4, 2, 5, 3)
    values[node.outputs[0]] = x.reshape(n, channels // f**2, height * f, width * f)


_OPS: dict[str, Callable[[Node, dict[Value, np.ndarray], Real], None]] = {
    "conv_b1": _conv_b1,
    "conv_q8": _conv_q8,
    "conv_shift": _conv_shift,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": _global_avg_pool,
    "global_sum": _global_sum,
    "pointwise": _pointwise,
    "channels": _channels_of,
    "resize": _resize,
    "pixel_shuffle": _pixel_shuffle,
    "adaptive_pool": _adaptive_pool,
}


# --- epilogues ---


def _walk(node: Node, v: np.ndarray, values: dict[Value, np.ndarray], precision: Real) -> None:
    """Lead the running value, int64 or real [N, C, H, W], through the node's epilogue."""
    with np.errstate(over="ignore", invalid="ignore"):
        for step in node.epilogue:
            if step.kind in _CHANGES:
                v = _CHANGES[step.kind](v, step, _channels(step), values, precision)
            else:
                values[step.value] = _WRITES[step.kind](v, step, _channels(step))


def _channels(step: Step) -> dict[str, np.ndarray]:
    """The step's arrays [C], shaped to meet [N, C, H, W]; those of two dimensions stay."""
    return {
        name: array if array.ndim == 2 else array.reshape(1, -1, 1, 1)
        for name, array in step.params.items()
    }


def _affine(v, step, p, values, precision):
    return v.astype(precision, copy=False) * p["scale"] + p["bias"]


def _add(v, step, p, values, precision):
    if step.value.type == Type.I16:
        return _sat16(v + values[step.value])
    return v + values[step.value]


def _sat16(v: np.ndarray) -> np.ndarray:
    """Integers brought into 16 bits."""
    return _counted_as_kept(v, np.clip(v, INT16_MIN, INT16_MAX))


def _shifted(v: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    """The sum of signed shifts of v: exact to the left, rounded down to the right."""
    total = np.zeros_like(v)
    for shifts, signs in zip(p["shifts"].T, p["signs"].T, strict=True):
        shifts, signs = (a.astype(np.int64).reshape(1, -1, 1, 1) for a in (shifts, signs))
        total += signs * ((v << np.maximum(shifts, 0)) >> np.maximum(-shifts, 0))
    return total


def _shift_sum(v, step, p, values, precision):
    return _sat16(_shifted(v, p))


def _shift_prelu(v, step, p, values, precision):
    u = _sat16(v + p["shift_in"])
    negative = _sat16(np.where(u < 0, _shifted(u, p), 0))
    return _sat16(np.where(u >= 0, u, negative) + p["shift_out"])


def _bias(v, step, p, values, precision):
    return _wrapped(v + p["bias"])


def _mul(v, step, p, values, precision):
    return v * values[step.value]


def _clip(v, step, p, values, precision):
    minimum, maximum = precision(step.attrs["minimum"]), precision(step.attrs["maximum"])
    v = np.where(v < minimum, minimum, v)
    return np.where(v > maximum, maximum, v)


def _sigmoid(v, step, p, values, precision):
    a = np.abs(v)
    e = np.exp(-a) if precision is np.float64 else _exp_of_minus(a)
    return np.where(v >= 0, 1 / (1 + e), e / (1 + e))


_EXP = (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def _exp_of_minus(a: np.ndarray) -> np.ndarray:
    """exp(-a) of float32 a >= 0, operation by operation as in docs/numerics.md."""
    f32 = np.float32
    a = np.where(a > f32(87), f32(87), a)
    k = np.rint(a * f32(-1.44269504))
    r = -a - k * f32(0.693359375)
    r = r - k * f32(-2.12194440e-4)
    p = np.full_like(r, 1.9875691500e-4)
    for c in _EXP:
        p = p * r + f32(c)
    p = p * (r * r) + r + f32(1)
    return np.ldexp(p, np.where(np.isnan(k), 0, k).astype(np.int32))


def _rprelu(v, step, p, values, precision):
    u = v + p["shift_in"]
    return np.where(u >= 0, u, p["slope"] * u) + p["shift_out"]


def _prelu(v, step, p, values, precision):
    return np.where(v >= 0, v, p["slope"] * v)


def _quant4_shift(v, step, p, values, precision):
    scaled = v * p["multiplier"].astype(np.int64) + p["offset"]
    return np.clip(scaled >> step.attrs["shift"], -8, 7)


def _quant4_ladder(v, step, p, values, precision):
    u = np.where(p["flip"] != 0, -v, v)
    level = np.full(v.shape, -8, np.int64)
    for cut in p["cuts"].T:
        level += cut.reshape(1, -1, 1, 1) <= u
    return level


def _store(v, step, p):
    if step.value.type == Type.I16:
        return _sat16(v).astype(np.int16)
    return v.astype({Type.I4: np.int8, Type.I32: np.int32}.get(step.value.type, v.dtype))


def _threshold(v, step, p):
    inside = (p["low"] <= v) & (v <= p["high"])
    return (inside != (p["flip"] != 0)).astype(np.uint8)


def _sign(v, step, p):
    return (v >= p["cut"]).astype(np.uint8)


def _quant8(v, step, p):
    real = v.dtype.type
    zero_point = real(step.attrs["zero_point"])
    levels = real(step.attrs["levels"])
    q = np.clip(np.rint(v * real(step.attrs["inv_scale"])) + zero_point, real(0), levels)
    return np.where(np.isnan(q), zero_point, q).astype(np.uint8)


def _quant16(v, step, p):
    real = v.dtype.type
    q = np.clip(np.rint(v * real(step.attrs["inv_scale"])), real(INT16_MIN), real(INT16_MAX))
    return np.where(np.isnan(q), 0, q).astype(np.int16)


_CHANGES = {
    "affine": _affine,
    "add": _add,
    "mul": _mul,
    "clip": _clip,
    "sigmoid": _sigmoid,
    "rprelu": _rprelu,
    "prelu": _prelu,
    "quant4_shift": _quant4_shift,
    "quant4_ladder": _quant4_ladder,
    "shift_sum": _shift_sum,
    "shift_prelu": _shift_prelu,
    "bias": _bias,
}
_WRITES = {
    "store": _store,
    "threshold": _threshold,
    "sign": _sign,
    "quant8": _quant8,
    "quant16": _quant16,
}
