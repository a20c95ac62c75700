"""Pooling, data movement and gates of the reference against scalar loops, one number at a time.

The loops follow `docs/numerics.md`, not the reference; zeros must have its sign.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from signbit.compiler import reference
from signbit.compiler.ir import Graph, Node, Step, Type, Value
from signbit.compiler.passes.check import check
from signbit.compiler.shapes import infer_shapes
from tests.compiler.build import pool_attrs

f32 = np.float32
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
quick = settings(max_examples=60, deadline=None)


def numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """float32 over many magnitudes, with zeros of both signs."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=shape) * 10.0 ** rng.integers(-4, 5, shape)).astype(f32)
    return np.where(rng.random(shape) < 0.15, rng.choice([f32(0), f32(-0.0)], shape), x)


def bits(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, shape).astype(np.uint8)


def run(
    op: str, inputs: list[np.ndarray], attrs: dict | None = None, **params: np.ndarray
) -> np.ndarray:
    """One node on its inputs, its shapes inferred and its rules checked as for any program."""
    sources = [
        Value(f"x{i}", Type.B1 if x.dtype == np.uint8 else Type.F32, x.shape[1:])
        for i, x in enumerate(inputs)
    ]
    kind = sources[0].type if op not in ("avg_pool", "adaptive_pool") else Type.F32
    channels = inputs[0].shape[1]
    if op == "channels":
        channels = params["index"].size
    elif op == "pixel_shuffle":
        channels //= attrs["factor"] ** 2
    out = Value("y", kind, (channels, 1, 1))
    node = Node(op, "layer", sources, [out], attrs or {}, params)
    graph = Graph([node], sources[0], [], [])
    infer_shapes(graph, inputs[0].shape[1:])
    graph.nodes = []
    check(graph)
    graph.nodes = [node]
    values = dict(zip(sources, inputs, strict=True))
    reference._OPS[op](node, values, f32)
    assert values[out].shape == (len(inputs[0]), *out.shape)
    assert values[out].dtype == inputs[0].dtype
    return values[out]


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    if found.dtype == f32:
        known = ~np.isnan(found)
        np.testing.assert_array_equal(np.signbit(found)[known], np.signbit(expected)[known])


def naive_pool(op: str, x: np.ndarray, a: dict[str, int]) -> np.ndarray:
    """Pooling whose output size is found by trying windows, not by the formula."""
    n, c, height, width = x.shape

    def starts(size: int, axis: str) -> list[int]:
        k, s, p = a[f"kernel_{axis}"], a[f"stride_{axis}"], a[f"pad_{axis}"]
        last = size + p - 1 - a.get(f"dilation_{axis}", 1) * (k - 1)
        found = list(range(-p, last + 1, s))
        # in ceil mode one more, if the last one left something out
        if a["ceil_mode"] and found[-1] < last and found[-1] + s < size:
            found.append(found[-1] + s)
        return found

    rows, columns = starts(height, "h"), starts(width, "w")
    y = np.zeros((n, c, len(rows), len(columns)), x.dtype)
    dh, dw = a.get("dilation_h", 1), a.get("dilation_w", 1)
    for b, k, (i, top), (j, left) in itertools.product(
        range(n), range(c), enumerate(rows), enumerate(columns)
    ):
        rs = [top + r * dh for r in range(a["kernel_h"])]
        cs = [left + s * dw for s in range(a["kernel_w"])]
        inside_rows = [r for r in rs if 0 <= r < height]
        inside_columns = [s for s in cs if 0 <= s < width]
        if op == "max_pool":
            m = x.dtype.type(0) if x.dtype == np.uint8 else f32(-np.inf)
            for s, r in itertools.product(inside_columns, inside_rows):
                m = x[b, k, r, s] if x[b, k, r, s] > m else m
        else:
            total = f32(0)
            for r, s in itertools.product(inside_rows, inside_columns):
                total = f32(total + x[b, k, r, s])
            if a["count_include_pad"]:
                counted_rows = [r for r in rs if r < height + a["pad_h"]]
                counted_columns = [s for s in cs if s < width + a["pad_w"]]
                taps = len(counted_rows) * len(counted_columns)
            else:
                taps = len(inside_rows) * len(inside_columns)
            m = f32(total * f32(f32(1) / f32(taps)))
        y[b, k, i, j] = m
    return y


@st.composite
def pools(draw: st.DrawFn) -> tuple[str, tuple[int, int], dict[str, int]]:
    op = draw(st.sampled_from(["max_pool", "avg_pool"]))
    attrs = pool_attrs(op, 1, 1, 0, ceil_mode=draw(st.integers(0, 1)))
    for axis in "hw":
        kernel = draw(st.integers(1, 4))
        attrs[f"kernel_{axis}"] = kernel
        attrs[f"stride_{axis}"] = draw(st.integers(1, 4))
        attrs[f"pad_{axis}"] = draw(st.integers(0, kernel // 2))
        if op == "max_pool":
            attrs[f"dilation_{axis}"] = draw(st.integers(1, 3))
    if op == "avg_pool":
        attrs["count_include_pad"] = draw(st.integers(0, 1))
    size = draw(SIZES)
    for axis, length in zip("hw", size, strict=True):
        reach = attrs.get(f"dilation_{axis}", 1) * (attrs[f"kernel_{axis}"] - 1)
        if length + 2 * attrs[f"pad_{axis}"] <= reach:
            size = (12, 12)
    return op, size, attrs


@quick
@given(pools(), st.integers(0, 1000))
def test_pooling(pool: tuple[str, tuple[int, int], dict[str, int]], seed: int) -> None:
    op, size, attrs = pool
    x = numbers((2, 2, *size), seed)
    found = run(op, [x], attrs)
    assert_same_bits(found, naive_pool(op, x, attrs))
    # and the sizes and values are PyTorch's
    pairs = {n: (attrs[f"{n}_h"], attrs[f"{n}_w"]) for n in ("kernel", "stride", "pad")}
    window = (pairs["kernel"], pairs["stride"], pairs["pad"])
    if op == "max_pool":
        dilation = (attrs["dilation_h"], attrs["dilation_w"])
        want = F.max_pool2d(torch.from_numpy(x), *window, dilation, bool(attrs["ceil_mode"]))
        b = bits((2, 2, *size), seed)
        assert_same_bits(run(op, [b], attrs), naive_pool(op, b, attrs))
    else:
        modes = bool(attrs["ceil_mode"]), bool(attrs["count_include_pad"])
        want = F.avg_pool2d(torch.from_numpy(x), *window, *modes)
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-5, atol=1e-2)


@quick
@given(SIZES, SIZES, st.integers(0, 1), st.integers(0, 1000))
def test_adaptive_pooling(
    size: tuple[int, int], output: tuple[int, int], take_max: int, seed: int
) -> None:
    x = numbers((1, 2, *size), seed)
    attrs = {"out_h": output[0], "out_w": output[1], "take_max": take_max}
    y = np.zeros((1, 2, *output), f32)

    def window(i: int, length: int, count: int) -> range:
        return range(
            math.floor(Fraction(i * length, count)), math.ceil(Fraction((i + 1) * length, count))
        )

    for c, i, j in itertools.product(range(2), range(output[0]), range(output[1])):
        rows, columns = window(i, size[0], output[0]), window(j, size[1], output[1])
        m, total = f32(-np.inf), f32(0)
        for r, s in itertools.product(rows, columns):
            m = x[0, c, r, s] if x[0, c, r, s] > m else m
            total = f32(total + x[0, c, r, s])
        mean = f32(total * f32(f32(1) / f32(len(rows) * len(columns))))
        y[0, c, i, j] = m if take_max else mean
    found = run("adaptive_pool", [x], attrs)
    assert_same_bits(found, y)
    pool = F.adaptive_max_pool2d if take_max else F.adaptive_avg_pool2d
    np.testing.assert_allclose(found, pool(torch.from_numpy(x), output).numpy(), 1e-5, 1e-2)


RESIZE = {"mode": 0, "align_corners": 0, "scale_h": 0, "scale_w": 0, "out_h": 0, "out_w": 0}


@quick
@given(SIZES, SIZES, st.sampled_from(["scale", "out", "like"]), st.integers(0, 1000))
def test_nearest_resize(size: tuple[int, int], by: tuple[int, int], form: str, seed: int) -> None:
    output = (size[0] * by[0], size[1] * by[1]) if form == "scale" else by
    attrs = RESIZE | ({} if form == "like" else {f"{form}_h": by[0], f"{form}_w": by[1]})
    like = [bits((2, 1, *output), 0)] if form == "like" else []
    for x in (numbers((2, 3, *size), seed), bits((2, 3, *size), seed)):
        y = np.zeros((2, 3, *output), x.dtype)
        for i, j in itertools.product(range(output[0]), range(output[1])):
            row = min(int(f32(i) * (f32(size[0]) / f32(output[0]))), size[0] - 1)
            column = min(int(f32(j) * (f32(size[1]) / f32(output[1]))), size[1] - 1)
            y[:, :, i, j] = x[:, :, row, column]
        assert_same_bits(run("resize", [x, *like], attrs), y)


def test_nearest_resize_reads_what_pytorch_reads() -> None:
    """Exact integers read other rows for some of these sizes, 4 to 82 among them."""
    pairs = itertools.chain(itertools.product(range(1, 130, 3), range(1, 260, 3)), [(4, 82)])
    for size, length in pairs:
        x = torch.arange(float(size)).reshape(1, 1, size, 1)
        want = F.interpolate(x, (length, 1)).flatten().numpy()
        np.testing.assert_array_equal(reference.nearest(size, length), want, f"{size} {length}")
    for size, factor in itertools.product(range(1, 100, 3), range(1, 17)):
        x = torch.arange(float(size)).reshape(1, 1, 1, size)
        want = F.interpolate(x, scale_factor=(1, factor)).flatten().numpy()
        np.testing.assert_array_equal(reference.nearest(size, size * factor), want)


@quick
@given(SIZES, SIZES, st.integers(0, 1), st.booleans(), st.integers(0, 1000))
def test_bilinear_resize(
    size: tuple[int, int], by: tuple[int, int], corners: int, scaled: bool, seed: int
) -> None:
    output = (size[0] * by[0], size[1] * by[1]) if scaled else by
    form = "scale" if scaled else "out"
    attrs = RESIZE | {f"{form}_h": by[0], f"{form}_w": by[1], "mode": 1, "align_corners": corners}

    def neighbours(at: int, length: int, count: int) -> tuple[int, int, f32, f32]:
        if corners:
            s = at * ((length - 1) / (count - 1)) if count > 1 else 0.0
        else:
            s = max((at + 0.5) * (length / count) - 0.5, 0.0)
        first = min(math.floor(s), length - 1)
        return first, min(first + 1, length - 1), f32(1 - (s - first)), f32(s - first)

    x = numbers((1, 2, *size), seed)
    y = np.zeros((1, 2, *output), f32)
    for c, i, j in itertools.product(range(2), range(output[0]), range(output[1])):
        y0, y1, gy, fy = neighbours(i, size[0], output[0])
        x0, x1, gx, fx = neighbours(j, size[1], output[1])
        top = f32(f32(x[0, c, y0, x0] * gx) + f32(x[0, c, y0, x1] * fx))
        bottom = f32(f32(x[0, c, y1, x0] * gx) + f32(x[0, c, y1, x1] * fx))
        y[0, c, i, j] = f32(f32(top * gy) + f32(bottom * fy))
    found = run("resize", [x], attrs)
    assert_same_bits(found, y)
    x = torch.from_numpy(x)
    want = F.interpolate(x, output, mode="bilinear", align_corners=bool(corners))
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-4, atol=1e-4 * float(x.abs().max()))


@quick
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_channels(counts: list[int], data: st.DataObject) -> None:
    total = sum(counts)
    index = np.array(
        data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=9)), np.int32
    )
    for make in (numbers, bits):
        maps = [make((2, count, 3, 4), seed) for seed, count in enumerate(counts)]
        y = np.zeros((2, len(index), 3, 4), maps[0].dtype)
        flat = [(m, c) for m in maps for c in range(m.shape[1])]
        for i, source in enumerate(index):
            m, c = flat[source]
            y[:, i] = m[:, c]
        assert_same_bits(run("channels", maps, index=index), y)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle(factor: int) -> None:
    for x in (numbers((2, 2 * factor**2, 3, 4), 0), bits((2, 2 * factor**2, 3, 4), 0)):
        y = np.zeros((2, 2, 3 * factor, 4 * factor), x.dtype)
        for c, i, j in itertools.product(range(2), range(3 * factor), range(4 * factor)):
            source = c * factor**2 + i % factor * factor + j % factor
            y[:, c, i, j] = x[:, source, i // factor, j // factor]
        assert_same_bits(run("pixel_shuffle", [x], {"factor": factor}), y)


def walk(v: np.ndarray, *steps: Step, precision: type = f32, **others: np.ndarray) -> np.ndarray:
    """v [N, C, H, W] through the steps of a pointwise node, which read `others`."""
    kind = Type.B1 if v.dtype == np.uint8 else Type.F32
    source, out = Value("x", kind, v.shape[1:]), Value("y", Type.F32, v.shape[1:])
    values = {source: v}
    for step in steps:
        if step.value is not None:
            values[step.value] = others[step.value.name]
    inputs = [source, *(step.value for step in steps if step.value is not None)]
    epilogue = [*steps, Step("store", value=out)]
    node = Node("pointwise", "p", inputs, [out], epilogue=epilogue)
    reference._OPS["pointwise"](node, values, precision)
    return values[out]


def test_pointwise_of_bits() -> None:
    b = bits((2, 3, 4, 5), 0)
    assert_same_bits(walk(b), np.where(b, f32(1), f32(-1)))


@pytest.mark.parametrize("kind", ["add", "mul"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5), (3, 1, 1), (1, 1, 1)])
def test_broadcast(kind: str, shape: tuple[int, int, int]) -> None:
    v, other = numbers((2, 3, 4, 5), 0), numbers((2, *shape), 1)
    value = Value("other", Type.F32, shape)
    y = np.zeros_like(v)
    for b, c, i, j in np.ndindex(*v.shape):
        o = other[b, c if shape[0] > 1 else 0, *((i, j) if shape[1] > 1 else (0, 0))]
        y[b, c, i, j] = v[b, c, i, j] + o if kind == "add" else v[b, c, i, j] * o
    assert_same_bits(walk(v, Step(kind, value=value), other=other), y)


def test_clip_keeps_nan_and_the_sign_of_zero() -> None:
    v = np.array([np.nan, -0.0, 0.0, -np.inf, np.inf, 7, -2, 6], f32).reshape(1, 8, 1, 1)
    found = walk(v, Step("clip", {}, {"minimum": 0.0, "maximum": 6.0}))
    expected = np.array([np.nan, -0.0, 0.0, 0, 6, 6, 0, 6], f32).reshape(1, 8, 1, 1)
    assert_same_bits(found, expected)


def scalar_sigmoid(v: f32) -> f32:
    """The steps of docs/numerics.md, each a float32 scalar."""
    if np.isnan(v):
        return v
    a = f32(abs(v))
    a = f32(87) if a > 87 else a
    k = f32(np.rint(f32(a * f32(-1.44269504))))
    r = f32(f32(-a) - f32(k * f32(0.693359375)))
    r = f32(r - f32(k * f32(-2.12194440e-4)))
    p = f32(1.9875691500e-4)
    for c in (
        1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1
    ):  # fmt: skip
        p = f32(f32(p * r) + f32(c))
    p = f32(f32(f32(p * f32(r * r)) + r) + f32(1))
    e = f32(math.ldexp(float(p), int(k)))
    return f32(f32(1) / f32(f32(1) + e)) if v >= 0 else f32(e / f32(f32(1) + e))


def test_sigmoid() -> None:
    rng = np.random.default_rng(0)
    v = np.concatenate([rng.normal(size=400) * 10.0 ** rng.integers(-6, 4, 400), [0, -0.0]])
    v = np.concatenate([v, [87, -87, 1e30, -1e30, np.inf, -np.inf, np.nan]]).astype(f32)
    v = v.reshape(1, -1, 1, 1)
    found = walk(v, Step("sigmoid"))
    expected = np.array([scalar_sigmoid(one) for one in v.ravel()], f32).reshape(v.shape)
    assert_same_bits(found, expected)
    true = torch.sigmoid(torch.from_numpy(v).double()).numpy()
    known = ~np.isnan(v)
    assert float(np.abs(found - true)[known].max()) < 2e-7
    exact = walk(v.astype(np.float64), Step("sigmoid"), precision=np.float64)
    np.testing.assert_allclose(exact[known], true[known], rtol=1e-15, atol=1e-300)
