"""Lowered graphs that break a rule of `ir`: the checks name the layer, in memory and in a file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from signbit.compiler import read_graph, reference
from signbit.compiler.emit import emit
from signbit.compiler.ir import Graph, Node, Step, Type, Value
from signbit.compiler.passes.check import check
from signbit.compiler.shapes import infer_shapes
from signbit.errors import FormatError
from tests.compiler.build import pool_attrs

RESIZE = {"mode": 0, "align_corners": 0, "scale_h": 0, "scale_w": 0, "out_h": 0, "out_w": 0}


def every_operation() -> Graph:
    """A program that holds every operation and step that moves, pools, gates or resizes maps."""

    def value(name: str, channels: int, kind: Type = Type.F32) -> Value:
        return Value(name, kind, (channels, 1, 1))

    x, c, r, p, m, a = (value(n, k) for n, k in zip("xcrpma", (4, 8, 8, 2, 2, 2), strict=True))
    bits, moved, real = value("bits", 2, Type.B1), value("moved", 2, Type.B1), value("real", 2)
    small, gate, like, y = value("small", 2), value("gate", 2), value("like", 2), value("y", 2)
    one, zero = np.ones(2, np.float32), np.zeros(2, np.float32)
    affine = Step("affine", {"scale": one, "bias": zero})
    clip = Step("clip", {}, {"minimum": -1.5, "maximum": float("inf")})
    nodes = [
        Node("channels", "join", [x, x], [c], {}, {"index": np.arange(8, dtype=np.int32)[::-1]}),
        Node("resize", "up", [c], [r], RESIZE | {"mode": 1, "scale_h": 2, "scale_w": 1}),
        Node("pixel_shuffle", "shuffle", [r], [p], {"factor": 2}),
        Node("max_pool", "max", [p], [m], pool_attrs("max_pool", 3, 2, 1, ceil_mode=1)),
        Node(
            "avg_pool", "avg", [m], [a], pool_attrs("avg_pool", 3, 1, 1, count_include_pad=1)
        ),
        Node("adaptive_pool", "adaptive", [a], [small], {"out_h": 1, "out_w": 1, "take_max": 1}),
        Node("pointwise", "gate", [small], [gate], epilogue=[
            affine, Step("sigmoid"), Step("store", value=gate)]),
        Node("pointwise", "sign", [a, gate], [bits], epilogue=[
            Step("mul", value=gate), clip, Step("sign", {"cut": zero}, {}, bits)]),
        Node("channels", "swap", [bits], [moved], {}, {"index": np.array([1, 0], np.int32)}),
        Node("pointwise", "real", [moved], [real], epilogue=[Step("store", value=real)]),
        Node("resize", "like", [real, p], [like], dict(RESIZE)),
        Node("pointwise", "end", [like, gate], [y], epilogue=[
            Step("add", value=gate), Step("store", value=y)]),
    ]  # fmt: skip
    graph = Graph(nodes, x, [y], [False])
    infer_shapes(graph, (4, 5, 7))
    return check(graph)


def test_every_operation_is_written_and_read_back() -> None:
    graph = every_operation()
    read = read_graph(emit(graph))
    for a, b in zip(graph.nodes, read.nodes, strict=True):
        assert (a.op, a.path, a.attrs) == (b.op, b.path, b.attrs)
        assert [(s.kind, s.attrs) for s in a.epilogue] == [(s.kind, s.attrs) for s in b.epilogue]
        assert [v.shape for v in a.inputs + a.outputs] == [v.shape for v in b.inputs + b.outputs]
    assert emit(read_graph(emit(read))) == emit(read)
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype(np.float32)
    (a,), (b,) = reference.run(graph, x), reference.run(read, x)
    assert a.shape == (2, 2, 24, 10)
    np.testing.assert_array_equal(a, b)
    infer_shapes(read, (4, 6, 5))
    assert read.outputs[0].shape == (2, 24, 10)


def node(graph: Graph, path: str) -> Node:
    return next(n for n in graph.nodes if n.path == path)


def attr(path: str, **changes: int) -> Callable[[Graph], None]:
    return lambda graph: node(graph, path).attrs.update(changes)


def index(*numbers: int) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        node(graph, "join").params["index"] = np.array(numbers, np.int32)

    return change


BROKEN = [
    (attr("up", mode=2), "up: mode must be 0 or 1"),
    (attr("like", align_corners=1), "like: align_corners must be 0"),
    (attr("up", scale_h=0, scale_w=0), "up: gives a map of 0x0"),
    (attr("up", scale_h=0, out_h=3, out_w=3), "up: has a size for rows or columns alone"),
    (attr("up", out_h=3, out_w=3), "up: its size must be given in one way"),
    (attr("like", scale_h=2, scale_w=2), "like: its size must be given in one way"),
    (attr("up", scale_w=1 << 30), "up: gives a map of"),
    (attr("up", scale_w=-1), "up: "),
    (attr("shuffle", factor=3), "shuffle: its factor 3 does not divide 8 channels|has shape"),
    (attr("shuffle", factor=0), "shuffle: factor is 0"),
    (attr("max", ceil_mode=2), "max: ceil_mode must be 0 or 1"),
    (attr("max", pad_h=2), "max: its padding is more than half"),
    (attr("max", dilation_h=0), "max: dilation_h is 0"),
    (attr("avg", count_include_pad=-1), "avg: count_include_pad must be 0 or 1"),
    (attr("adaptive", out_w=2), "sign: multiplies a map of \\(1, 2\\) and one of"),
    (attr("adaptive", out_w=0), "adaptive: gives a"),
    (attr("adaptive", take_max=2), "adaptive: take_max must be 0 or 1"),
    (index(*range(1, 9)), "join: index leaves its 8 channels"),
    (index(*range(-1, 7)), "join: index leaves its 8 channels"),
    (index(0, 1), "join: c has shape|join: .* has shape"),
]


@pytest.mark.parametrize(
    ("change", "message"), BROKEN, ids=lambda p: p if isinstance(p, str) else ""
)
def test_broken_rules_name_the_layer(change: Callable[[Graph], None], message: str) -> None:
    graph = every_operation()
    change(graph)
    with pytest.raises(FormatError, match=message):
        read_graph(emit(graph))


def test_steps_that_break_a_rule() -> None:
    for attrs in ({"minimum": 2.0, "maximum": 1.0}, {"minimum": float("nan"), "maximum": 1.0}):
        graph = every_operation()
        node(graph, "end").epilogue[:0] = [Step("clip", {}, attrs)]
        with pytest.raises(FormatError, match="end: clips to an empty range"):
            read_graph(emit(graph))
    graph = every_operation()
    other = Value("other", Type.F32, (3, 1, 1))
    graph.nodes.insert(0, Node("channels", "three", [graph.input], [other], {}, {
        "index": np.arange(3, dtype=np.int32)}))  # fmt: skip
    pool = Value("pool", Type.F32, (3, 1, 1))
    graph.nodes.insert(1, Node("global_avg_pool", "pool", [other], [pool]))
    end = node(graph, "end")
    end.inputs.insert(1, pool)
    end.epilogue[:0] = [Step("mul", value=pool)]
    with pytest.raises(FormatError, match="end: mul of 3 channels and 2"):
        read_graph(emit(graph))
    graph = every_operation()
    node(graph, "join").inputs[1] = node(graph, "sign").outputs[0]
    with pytest.raises(FormatError, match="join: "):
        read_graph(emit(graph))


def test_flat_outputs_have_one_pixel() -> None:
    graph = every_operation()
    graph.flat_outputs = [True]
    with pytest.raises(FormatError, match="this output is a vector, but has 20x14"):
        read_graph(emit(graph))
