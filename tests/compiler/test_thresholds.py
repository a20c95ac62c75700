"""Thresholds equal the path's own sign on every reachable integer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signbit.compiler.ir import INT32_MAX, INT32_MIN, Graph, Node, Type, Value
from signbit.compiler.passes import thresholds
from signbit.compiler.passes.paths import changes, direction, evaluate, reachable
from signbit.compiler.passes.thresholds import intervals, lower_signs
from signbit.errors import CompileError
from tests.compiler.build import path_graph, pool_attrs, step

GAINS = [0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 1e6, -1e6]
real = st.one_of(
    st.sampled_from([*GAINS, 0.5, -2.0, 1.5]),
    st.floats(-50, 50, allow_nan=False, allow_subnormal=False),
)


def channel_path(v: float, gain: float, bias: float, act: list[float], cut: float) -> bool:
    """The path of one channel in Python's own floats: batch norm, RPReLU, sign."""
    y = v * gain + bias
    u = y + act[0]
    y = (u if u >= 0 else act[1] * u) + act[2]
    return y >= cut


def applied(params: dict[str, np.ndarray], v: np.ndarray) -> np.ndarray:
    """Bits [C, n] of thresholds on integers [n]."""
    low, high, flip = (params[name][:, None] for name in ("low", "high", "flip"))
    return ((low <= v) & (v <= high)) != (flip != 0)


@settings(max_examples=150, deadline=None)
@given(
    k=st.integers(1, 70),
    rows=st.lists(st.tuples(real, real, real, real, real, real), min_size=1, max_size=5),
)
def test_every_integer_of_a_binary_path(k: int, rows: list[tuple[float, ...]]) -> None:
    gain, bias, shift_in, slope, shift_out, cut = np.array(rows, np.float64).T
    steps = [
        step("affine", scale=gain, bias=bias),
        step("rprelu", shift_in=shift_in, slope=slope, shift_out=shift_out),
        step("sign", cut=cut),
    ]
    graph = path_graph(np.ones((len(rows), k, 1, 1), np.int8), steps)
    integers = np.arange(-k, k + 1)
    expected = np.array(
        [[channel_path(v, r[0], r[1], list(r[2:5]), r[5]) for v in integers.tolist()] for r in rows]
    )
    node = lower_signs(graph).nodes[-1]
    assert node.op == "threshold"
    np.testing.assert_array_equal(applied(node.params, integers), expected)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(real, real, real, real, real, real), min_size=1, max_size=4))
def test_bisection_equals_trying_every_integer(rows: list[tuple[float, ...]]) -> None:
    gain, bias, shift_in, slope, shift_out, cut = np.array(rows, np.float64).T
    steps = [
        step("affine", scale=gain, bias=bias),
        step("prelu", slope=np.full(len(rows), 0.3)),
        step("rprelu", shift_in=shift_in, slope=slope, shift_out=shift_out),
    ]
    low, high = np.full(len(rows), -3001), np.full(len(rows), 2500)
    tried = thresholds._exhaustive(steps, low, high, cut, "layer")
    found = thresholds._bisected(steps, low, high, cut, "layer")
    integers = np.arange(-3001, 2501)
    np.testing.assert_array_equal(applied(tried, integers), applied(found, integers))


def test_wide_sums_of_8_bit_convolutions() -> None:
    """The 7x7 stem's range, where integers are too many to try: checked around the cut."""
    weight = np.array([[127] * 147, [-127] * 147, [100, -100] * 73 + [7], [0] * 147], np.int8)
    gain = np.array([1e-3, -2e-3, 3e-4, 1.0])
    bias = np.array([0.123, 345.6, -77.7, -1e-9])
    steps = [step("affine", scale=gain, bias=bias), step("sign", cut=np.zeros(4))]
    graph = path_graph(weight.reshape(4, 147, 1, 1), steps, "conv_q8")
    low, high = reachable(graph.nodes[0])
    assert high.max() - low.min() > 1 << 22
    params = lower_signs(graph).nodes[-1].params
    for channel in range(4):
        cuts = [params[name][channel] for name in ("low", "high")]
        near = [c + d for c in cuts for d in range(-3, 4)] + [low[channel], high[channel]]
        integers = np.array([v for v in near if low[channel] <= v <= high[channel]])
        expected = integers * gain[channel] + bias[channel] >= 0
        np.testing.assert_array_equal(applied(params, integers)[channel], expected)
    # (a weight of zeros can only give 0, and 0 * 1.0 - 1e-9 is negative)
    assert (params["low"][3], params["high"][3], params["flip"][3]) == (INT32_MIN, INT32_MAX, 1)


def test_bounds_of_8_bit_sums() -> None:
    graph = path_graph(np.array([[[[2]], [[-3]]]], np.int8), [], "conv_q8")
    low, high = reachable(graph.nodes[0])  # zero point 3: q - 3 is -3..252
    assert (low[0], high[0]) == (2 * -3 + -3 * 252, 2 * 252 + -3 * -3)


def test_interval_forms() -> None:
    bits = np.array(
        [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 1, 1]], bool
    )
    found = intervals(bits, -2, "layer")
    assert found["low"].tolist() == [INT32_MIN, INT32_MIN, 0, INT32_MIN, -1, -1]
    assert found["high"].tolist() == [INT32_MAX, INT32_MAX, INT32_MAX, -2, 0, -1]
    assert found["flip"].tolist() == [0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("wide", [False, True])
def test_three_cuts_are_refused(wide: bool) -> None:
    reach = 2000 if wide else 20
    weight = np.ones((2, reach, 1, 1), np.int8) * (127 if wide else 1)
    scale = 40.0 / (reach * 32000) if wide else 1.0
    steps = [
        step("affine", scale=[scale] * 2, bias=[0.0, 0.0]),
        # |v| - 5, then | |v| - 5 | - 2 in channel 1: + - + - +
        step("prelu", slope=[1.0, -1.0]),
        step("rprelu", shift_in=[0.0, -5.0], slope=[1.0, -1.0], shift_out=[0.0, -2.0]),
        step("sign", cut=[0.0, 0.0]),
    ]
    if wide:
        steps[0].params["bias"][:] = -20.0
    graph = path_graph(weight, steps, "conv_q8" if wide else "conv_b1")
    with pytest.raises(CompileError, match=r"sign: channel 1 changes its sign 4 times"):
        lower_signs(graph)


def pooled_graph(gain: np.ndarray, slope: np.ndarray) -> Graph:
    """Convolution -> affine -> 2x2 max-pooling -> affine(gain) -> PReLU(slope) -> sign."""
    channels = len(gain)
    before = step("affine", scale=np.linspace(-1, 1, channels), bias=np.full(channels, 0.25))
    graph = path_graph(np.ones((channels, 5, 1, 1), np.int8), [before])
    pooled = Value("pooled", Type.F32, (channels, 1, 1))
    attrs = pool_attrs("max_pool", 2, 2, 0)
    nodes = [*graph.nodes, Node("max_pool", "pool", [graph.outputs[0]], [pooled], attrs)]
    value = pooled
    rest = [
        step("affine", scale=gain, bias=np.full(channels, 0.5)),
        step("prelu", slope=slope),
        step("sign", cut=np.zeros(channels)),
    ]
    for index, node in enumerate(rest):
        kind = Type.B1 if node.op == "sign" else Type.F32
        node.inputs, value = [value], Value(f"after{index}", kind, (channels, 1, 1))
        node.outputs = [value]
        nodes.append(node)
    return Graph(nodes, graph.input, [value], [False])


def test_sign_moves_before_max_pooling() -> None:
    gain = np.array([1.0, -1.0, 0.0, -0.3, 2.0])
    graph = pooled_graph(gain, np.full(5, 0.25))
    threshold, pool = lower_signs(graph).nodes[-2:]
    assert (threshold.op, pool.op) == ("threshold", "max_pool")
    assert pool.params["flip"].tolist() == [0, 1, 0, 1, 0]
    # every pair of integers in a window
    a, b = (m.ravel() for m in np.meshgrid(np.arange(-5, 6), np.arange(-5, 6)))
    before, after = graph.nodes[1:2], graph.nodes[3:5]
    real = np.maximum(
        evaluate(before, np.array([a], float)), evaluate(before, np.array([b], float))
    )
    expected = evaluate(after, real) >= 0
    bits = applied(threshold.params, a) | applied(threshold.params, b)
    np.testing.assert_array_equal(bits != pool.params["flip"][:, None].astype(bool), expected)


def test_sign_stays_behind_max_pooling_where_the_path_bends() -> None:
    graph = pooled_graph(np.ones(5), np.array([0.25, -0.25, 1, 1, 1]))
    assert [node.op for node in lower_signs(graph).nodes[-1:]] == ["sign"]
    assert direction(graph.nodes[3:5], 5).tolist() == [1, 0, 1, 1, 1]


def test_integers_beyond_a_channels_reach_do_not_count() -> None:
    """Channel 0 reaches -12..1008, channel 1 only -3..252: short of where it would be cut."""
    weight = np.array([[1, 1, 1, 1], [0, 0, 0, 1]], np.int8).reshape(2, 4, 1, 1)
    steps = [
        step("affine", scale=[1.0, 1.0], bias=[-400.0, -400.0]),
        step("prelu", slope=[1.0, -1.0]),  # |v - 400| in channel 1
        step("sign", cut=[100.0, 100.0]),
    ]
    params = lower_signs(path_graph(weight, steps, "conv_q8")).nodes[-1].params
    assert params["low"].tolist() == [500, INT32_MIN]
    assert params["high"].tolist() == [INT32_MAX, INT32_MAX]
    assert params["flip"].tolist() == [0, 0]


def test_changes_counts_a_kink_between_two_integers() -> None:
    steps = [step("affine", scale=[1.0], bias=[0.5]), step("prelu", slope=[-1.0])]
    # |v + 0.5| >= 3: true up to -4, false -3..2, true from 3
    assert changes(steps, 0, -100, 100, lambda y: y >= 3) == (True, [-3, 3])
