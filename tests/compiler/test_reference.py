"""The reference against naive loops, written as `docs/numerics.md` states each operation."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from signbit import runtime
from signbit.compiler import reference
from signbit.compiler.emit import emit
from signbit.compiler.ir import Graph, Node, Step, Type, Value
from tests.compiler.build import conv_attrs, pool_attrs

rng = np.random.default_rng(0)
f32 = np.float32


def naive_convolution(
    x: np.ndarray, weight: np.ndarray, attrs: dict[str, int], outside: int
) -> np.ndarray:
    """One output at a time, in Python integers."""
    n, _, height, width = x.shape
    outputs, fan_in, kernel_h, kernel_w = weight.shape
    ph, pw, sh, sw = attrs["pad_h"], attrs["pad_w"], attrs["stride_h"], attrs["stride_w"]
    dh, dw = attrs["dilation_h"], attrs["dilation_w"]
    out_h = (height + 2 * ph - dh * (kernel_h - 1) - 1) // sh + 1
    out_w = (width + 2 * pw - dw * (kernel_w - 1) - 1) // sw + 1
    y = np.zeros((n, outputs, out_h, out_w), np.int64)
    per_group = outputs // attrs["groups"]
    for b, o, i, j in itertools.product(range(n), range(outputs), range(out_h), range(out_w)):
        total = 0
        for c, r, s in itertools.product(range(fan_in), range(kernel_h), range(kernel_w)):
            row, column = i * sh - ph + r * dh, j * sw - pw + s * dw
            inside = 0 <= row < height and 0 <= column < width
            channel = o // per_group * fan_in + c
            a = int(x[b, channel, row, column]) if inside else outside
            total += a * int(weight[o, c, r, s])
        y[b, o, i, j] = total
    return y


def sums_of(op: str, weight: np.ndarray, attrs: dict[str, int], x: np.ndarray) -> np.ndarray:
    """A convolution's integers, by way of an affine that changes nothing."""
    kind = Type.B1 if op == "conv_b1" else Type.U8
    source, out = Value("x", kind, x.shape[1:]), Value("y", Type.F32, (len(weight), 1, 1))
    one, zero = np.ones(len(weight), f32), np.zeros(len(weight), f32)
    steps = [Step("affine", {"scale": one, "bias": zero}), Step("store", value=out)]
    node = Node(op, "conv", [source], [out], attrs, {"weight": weight}, steps)
    values = {source: x}
    reference._OPS[op](node, values, np.float32)
    return values[out].astype(np.int64)


GEOMETRIES = [
    conv_attrs(4, 3, 3, 1, 1),
    conv_attrs(5, 4, 3, 2, 1),
    conv_attrs(8, 8, 3, 1, 2, groups=2, dilation_h=2, dilation_w=2),
    conv_attrs(3, 5, 1),
    conv_attrs(6, 2, 5, 3, 2),
    conv_attrs(4, 4, 3) | {"kernel_w": 1, "pad_h": 1, "stride_w": 2, "dilation_h": 2},
]


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("attrs", GEOMETRIES)
def test_binary_convolution(attrs: dict[str, int], pad_value: int) -> None:
    shape = (attrs["out_channels"], attrs["in_channels"] // attrs["groups"])
    weight = rng.choice([-1, 1], (*shape, attrs["kernel_h"], attrs["kernel_w"])).astype(np.int8)
    bits = rng.integers(0, 2, (2, attrs["in_channels"], 7, 6)).astype(np.uint8)
    found = sums_of("conv_b1", weight, attrs | {"pad_value": pad_value}, bits)
    expected = naive_convolution(bits.astype(int) * 2 - 1, weight, attrs, pad_value)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("zero_point", [0, 117, 255])
@pytest.mark.parametrize("attrs", GEOMETRIES)
def test_8_bit_convolution(attrs: dict[str, int], zero_point: int) -> None:
    shape = (attrs["out_channels"], attrs["in_channels"] // attrs["groups"])
    weight = rng.integers(-127, 128, (*shape, attrs["kernel_h"], attrs["kernel_w"]), np.int8)
    q = rng.integers(0, 256, (2, attrs["in_channels"], 7, 6)).astype(np.uint8)
    found = sums_of("conv_q8", weight, attrs | {"zero_point": zero_point}, q)
    expected = naive_convolution(q.astype(int) - zero_point, weight, attrs, 0)
    np.testing.assert_array_equal(found, expected)


def test_8_bit_sums_beyond_the_mantissa_of_float32() -> None:
    weight = np.full((1, 1000, 1, 1), 127, np.int8)
    weight[0, 0] = 126
    q = np.full((1, 1000, 1, 1), 255, np.uint8)
    source, out = Value("x", Type.U8, (1000, 1, 1)), Value("y", Type.B1, (1, 1, 1))
    exact = 999 * 127 * 255 + 126 * 255
    bounds = {"low": np.array([exact], np.int32), "high": np.array([exact], np.int32)}
    step = Step("threshold", bounds | {"flip": np.zeros(1, np.uint8)}, {}, out)
    attrs = conv_attrs(1000, 1, zero_point=0)
    node = Node("conv_q8", "conv", [source], [out], attrs, {"weight": weight}, [step])
    values = {source: q}
    reference._OPS["conv_q8"](node, values, np.float32)
    assert exact > 1 << 24
    assert exact % 2 == 1  # float32 cannot hold it
    assert values[out].item() == 1


def pool(op: str, x: np.ndarray, kernel: int, stride: int, pad: int, **params: np.ndarray):
    kind = Type.B1 if x.dtype == np.uint8 else Type.F32
    source = Value("x", kind, x.shape[1:])
    out = Value("y", kind if op == "max_pool" else Type.F32, x.shape[1:])
    attrs = pool_attrs(op, kernel, stride, pad)
    values = {source: x}
    reference._OPS[op](Node(op, "pool", [source], [out], attrs, params), values, np.float32)
    return values[out]


def naive_windows(x: np.ndarray, kernel: int, stride: int, pad: int, f: Callable) -> np.ndarray:
    n, c, height, width = x.shape
    out_h, out_w = (
        (height + 2 * pad - kernel) // stride + 1,
        (width + 2 * pad - kernel) // stride + 1,
    )
    y = np.zeros((n, c, out_h, out_w), x.dtype)
    for b, k, i, j in itertools.product(range(n), range(c), range(out_h), range(out_w)):
        rows = [r for r in range(i * stride - pad, i * stride - pad + kernel) if 0 <= r < height]
        columns = [s for s in range(j * stride - pad, j * stride - pad + kernel) if 0 <= s < width]
        y[b, k, i, j] = f([x[b, k, r, s] for r in rows for s in columns])
    return y


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_max_pool(kernel: int, stride: int, pad: int) -> None:
    x = rng.normal(size=(2, 3, 7, 8)).astype(f32) - 2
    expected = naive_windows(x, kernel, stride, pad, max)
    np.testing.assert_array_equal(pool("max_pool", x, kernel, stride, pad), expected)
    bits = rng.integers(0, 2, (2, 3, 7, 8)).astype(np.uint8)
    flip = np.array([0, 1, 0], np.uint8)
    expected = naive_windows(bits, kernel, stride, pad, max) ^ flip[None, :, None, None]
    np.testing.assert_array_equal(pool("max_pool", bits, kernel, stride, pad, flip=flip), expected)


def test_max_pool_ignores_nan() -> None:
    x = np.array([[[[np.nan, -3.0], [-2.0, np.nan]]]], f32)
    assert pool("max_pool", x, 2, 2, 0).item() == -2


@pytest.mark.parametrize(
    ("window", "negative"), [([[-3, -0.0], [0.0, -5]], False), ([[-3, 0.0], [-0.0, -5]], True)]
)
def test_max_pool_meets_zeros_column_by_column(window: list, negative: bool) -> None:
    x = np.broadcast_to(np.array(window, f32), (1, 4, 2, 2)).copy()
    assert (
        np.signbit(pool("max_pool", x, 2, 2, 0)).tolist()
        == np.full((1, 4, 1, 1), negative).tolist()
    )
    # and so does the engine, bit for bit
    source, out = Value("x", Type.F32, (4, 2, 2)), Value("y", Type.F32, (4, 1, 1))
    attrs = pool_attrs("max_pool", 2, 2, 0)
    graph = Graph([Node("max_pool", "pool", [source], [out], attrs)], source, [out], [False])
    found = runtime.load(emit(graph))(x)
    assert found.view(np.uint32).tolist() == reference.run(graph, x)[0].view(np.uint32).tolist()


def test_avg_pool_adds_row_by_row() -> None:
    x = (rng.normal(size=(2, 3, 6, 6)) * 10.0 ** rng.integers(-4, 5, (2, 3, 6, 6))).astype(f32)

    def mean(window: list[np.float32]) -> np.float32:
        total = f32(0)
        for value in window:
            total = f32(total + value)
        return f32(total * f32(f32(1) / f32(9)))

    np.testing.assert_array_equal(pool("avg_pool", x, 3, 3, 0), naive_windows(x, 3, 3, 0, mean))


@pytest.mark.parametrize("size", [(7, 7), (1, 1), (3, 16), (5, 37)])
def test_global_average_adds_in_16_columns(size: tuple[int, int]) -> None:
    x = (rng.normal(size=(2, 3, *size)) * 10.0 ** rng.integers(-4, 5, (2, 3, *size))).astype(f32)
    expected = np.zeros((2, 3, 1, 1), f32)
    for b, c in itertools.product(range(2), range(3)):
        s = [f32(0)] * 16
        for y, column in itertools.product(range(size[0]), range(size[1])):
            s[column % 16] = f32(s[column % 16] + x[b, c, y, column])
        for half in (8, 4, 2, 1):
            for j in range(half):
                s[j] = f32(s[j] + s[j + half])
        expected[b, c] = s[0] / f32(size[0] * size[1])
    np.testing.assert_array_equal(pool("global_avg_pool", x, 1, 1, 0), expected)


def test_global_average_of_bits() -> None:
    bits = np.array([[[[1, 1, 0]], [[0, 0, 0]]]], np.uint8)
    np.testing.assert_array_equal(
        pool("global_avg_pool", bits, 1, 1, 0).ravel(), [f32(1) / f32(3), f32(-1)]
    )


def steps_on(v: np.ndarray, *steps: Step) -> dict[Value, np.ndarray]:
    """Walk [C] real numbers, one a channel, through a pointwise node."""
    source = Value("x", Type.F32, (len(v), 1, 1))
    outputs = [step.value for step in steps if step.value is not None]
    values = {source: v.astype(f32).reshape(1, -1, 1, 1)}
    node = Node("pointwise", "p", [source], outputs, epilogue=list(steps))
    reference._OPS["pointwise"](node, values, np.float32)
    return {value: values[value].ravel() for value in outputs}


def test_quant8_rounds_to_even_saturates_and_maps_nan() -> None:
    out = Value("q", Type.U8, (8, 1, 1))
    v = np.array([0.5, 1.5, 2.5, -0.5, 1e30, -1e30, np.nan, -3.0])
    step = Step("quant8", {}, {"inv_scale": 1.0, "zero_point": 2, "levels": 255}, out)
    assert steps_on(v, step)[out].tolist() == [2, 4, 4, 2, 255, 0, 2, 0]
    step.attrs["levels"] = 3
    assert steps_on(v, step)[out].tolist() == [2, 3, 3, 2, 3, 0, 2, 0]


def test_sign_of_zeros_and_nan() -> None:
    out = Value("b", Type.B1, (5, 1, 1))
    step = Step("sign", {"cut": np.array([0, 0, 0, 1.5, 1.5], f32)}, {}, out)
    v = np.array([0.0, -0.0, np.nan, 1.5, np.nextafter(f32(1.5), f32(0))])
    assert steps_on(v, step)[out].tolist() == [1, 1, 0, 1, 0]


def test_affine_rounds_twice() -> None:
    out = Value("y", Type.F32, (1, 1, 1))
    a, b, c = f32(1 + 2**-12), f32(1 + 2**-12), f32(-1)
    arrays = {"scale": np.array([b]), "bias": np.array([c])}
    found = steps_on(np.array([a]), Step("affine", arrays), Step("store", value=out))[out]
    fused = f32(float(a) * float(b) + float(c))
    assert found.item() == f32(a * b) + c != fused


def test_input_of_pixels() -> None:
    value = Value("input", Type.F32, (2, 1, 1))
    mean, std = np.array([0.5, 0.1], f32), np.array([0.2, 0.3], f32)
    graph = Graph([], value, [], [], mean, std)
    x = rng.integers(0, 256, (1, 3, 4, 2)).astype(np.uint8)
    found = reference.load_input(graph, x)
    for i, j, c in itertools.product(range(3), range(4), range(2)):
        expected = f32(f32(f32(x[0, i, j, c]) / f32(255)) - mean[c]) / std[c]
        assert found[0, c, i, j] == expected
    with pytest.raises(ValueError, match=r"uint8 \[N, H, W, 2\]"):
        reference.load_input(graph, x.transpose(0, 3, 1, 2))
    graph.mean = graph.std = None
    with pytest.raises(ValueError, match="no preprocessing"):
        reference.load_input(graph, x)
