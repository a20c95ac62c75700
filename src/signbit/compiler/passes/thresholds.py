"""Signs behind integers become thresholds on the integers, exact by construction.

A bit is `(low <= v <= high) != flip`: no cut, one, or two. Max-pooling between the integer and the
sign is moved behind the threshold, where it is an OR of bits, if what follows it is monotone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from signbit.compiler.ir import INT32_MAX, INT32_MIN, Graph, Node, Type, Value
from signbit.compiler.passes.paths import (
    EXHAUSTIVE,
    changes,
    direction,
    reachable,
    tables,
    walk_up,
)
from signbit.errors import CompileError


def lower_signs(graph: Graph) -> Graph:
    """Replace each sign that hangs on an integer by a threshold; the others stay.

    Raises CompileError, naming layer and channel, where the path crosses the sign's threshold more
    than twice.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += _lower_sign(graph, node) if node.op == "sign" else [node]
    return replace(graph, nodes=nodes)


def _lower_sign(graph: Graph, sign: Node) -> list[Node]:
    source, after = walk_up(graph, sign.inputs[0])
    if source.type == Type.I32:
        params = _params(graph, source, after, sign)
        return [Node("threshold", sign.path, [source], sign.outputs, {}, params)]
    pool = graph.producer(source)
    if pool is None or pool.op != "max_pool" or source.type != Type.F32:
        return [sign]
    if (pool.attrs["dilation_h"], pool.attrs["dilation_w"]) != (1, 1):
        return [sign]  # a window may see nothing of a small image: its -inf is no pixel's bit
    source, before = walk_up(graph, pool.inputs[0])
    way = direction(after, sign.outputs[0].channels)
    if source.type != Type.I32 or not way.all():
        return [sign]
    params = _params(graph, source, before + after, sign)
    falling = (way < 0).astype(np.uint8)
    # Falling: the bit of a window is the AND of its pixels' bits, that is NOT OR NOT.
    params["flip"] = params["flip"] ^ falling
    bits = Value(f"{sign.outputs[0].name}:unpooled", Type.B1, source.shape)
    return [
        Node("threshold", sign.path, [source], [bits], {}, params),
        Node(
            "max_pool",
            pool.path,
            [bits],
            sign.outputs,
            pool.attrs,
            {"flip": falling} if falling.any() else {},
        ),
    ]


def _params(graph: Graph, source: Value, steps: list[Node], sign: Node) -> dict[str, np.ndarray]:
    low, high = reachable(graph.producer(source))
    cut = sign.params["cut"]
    if high.max() - low.min() < EXHAUSTIVE:
        return _exhaustive(steps, low, high, cut, sign.path)
    return _bisected(steps, low, high, cut, sign.path)


def _exhaustive(
    steps: list[Node], low: np.ndarray, high: np.ndarray, cut: np.ndarray, path: str
) -> dict[str, np.ndarray]:
    parts = []
    for channels, first, values in tables(steps, low, high):
        bits = values >= cut[channels, None]
        parts.append(intervals(bits, first, path, channels.start))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _bisected(
    steps: list[Node], low: np.ndarray, high: np.ndarray, cut: np.ndarray, path: str
) -> dict[str, np.ndarray]:
    params = _empty(len(cut))
    for channel, threshold in enumerate(cut.tolist()):
        first, found = changes(
            steps, channel, int(low[channel]), int(high[channel]), lambda y, t=threshold: y >= t
        )
        if len(found) > 2:
            raise _too_many(path, channel, len(found))
        if not found:
            params["flip"][channel] = not first
        elif len(found) == 2:
            params["low"][channel], params["high"][channel] = found[0], found[1] - 1
            params["flip"][channel] = first
        elif first:
            params["high"][channel], params["flip"][channel] = found[0] - 1, 0
        else:
            params["low"][channel], params["flip"][channel] = found[0], 0
    return params


def intervals(bits: np.ndarray, first: int, path: str, channel: int = 0) -> dict[str, np.ndarray]:
    """low, high, flip of each row of `bits` [C, n], the bits of the integers from `first` on.

    Raises CompileError for a row that changes more than twice; `channel` is the number of row 0.
    """
    differs = bits[:, 1:] != bits[:, :-1]
    count = differs.sum(1)
    if (count > 2).any():
        worst = int(np.argmax(count > 2))
        raise _too_many(path, channel + worst, int(count[worst]))
    params = _empty(len(bits))
    if not differs.shape[1]:
        params["flip"] = (~bits[:, 0]).astype(np.uint8)
        return params
    start = first + 1 + np.argmax(differs, 1)  # first integer behind the first change
    last = first + differs.shape[1] - 1 - np.argmax(differs[:, ::-1], 1)  # last before the last
    begins = bits[:, 0]
    two = count == 2
    low = two | ((count == 1) & ~begins)
    high = two | ((count == 1) & begins)
    params["low"][low] = start[low]
    params["high"][high] = last[high]
    params["flip"] = np.where(two, begins, (count == 0) & ~begins).astype(np.uint8)
    return params


def _empty(channels: int) -> dict[str, np.ndarray]:
    return {
        "low": np.full(channels, INT32_MIN, np.int64),
        "high": np.full(channels, INT32_MAX, np.int64),
        "flip": np.zeros(channels, np.uint8),
    }


def _too_many(path: str, channel: int, count: int) -> CompileError:
    return CompileError(
        f"{path}: channel {channel} changes its sign {count} times along the sum before it, the "
        "engine can do 2: use fewer PReLUs with negative slopes before this sign"
    )
