"""Per-channel paths from an integer to a real number, evaluated in float64.

Behind an integer sum (a convolution's, or that of an INT4 add) stands a chain of steps that work on
each channel alone: affine maps, PReLUs, clips. Such a path is piecewise linear with few kinks, and
correctly rounded arithmetic is monotone, so that between two kinks the path is monotone in float64
too. Where a condition on its end changes is therefore found exactly: by trying every integer, or
where there are too many by bisection between the kinks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from signbit.compiler.ir import Graph, Node, Type, Value

PATH_OPS = ("affine", "prelu", "rprelu", "clip")
_MONOTONE = ("affine", "clip")  # without a kink at which they turn
EXHAUSTIVE = 1 << 17  # integers a channel
_CHUNK = 1 << 21  # evaluations at a time


def walk_up(graph: Graph, value: Value) -> tuple[Value, list[Node]]:
    """Go up from `value` through per-channel steps; returns where they start, and the steps."""
    steps: list[Node] = []
    while value.type == Type.F32:
        node = graph.producer(value)
        if node is None or node.op not in PATH_OPS:
            break
        steps.insert(0, node)
        value = node.inputs[0]
    return value, steps


def reachable(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest sum of each output channel (int64) of `conv_b1`, `conv_q8` or `add`."""
    if node.op == "add":
        shape = node.outputs[0].channels
        return np.full(shape, -16, np.int64), np.full(shape, 14, np.int64)
    weight = node.params["weight"].reshape(node.attrs["out_channels"], -1).astype(np.int64)
    if node.op == "conv_b1":
        most = np.full(len(weight), weight.shape[1], np.int64)
        return -most, most
    # numbers of fewer levels than 255 reach less: these are bounds
    below, above = -node.attrs["zero_point"], 255 - node.attrs["zero_point"]
    positive, negative = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
    return positive * below + negative * above, positive * above + negative * below


def evaluate(steps: list[Node], values: np.ndarray, channels: slice = slice(None)) -> np.ndarray:
    """The path on float64 `values` [C, n] (or [1, n]) of the given channels."""
    v = values
    for step in steps:
        p = {name: array[channels, None] for name, array in step.params.items()}
        if step.op == "affine":
            v = v * p["scale"] + p["bias"]
        elif step.op == "clip":
            v = np.clip(v, step.attrs["minimum"], step.attrs["maximum"])
        elif step.op == "prelu":
            v = np.where(v >= 0, v, p["slope"] * v)
        else:
            u = v + p["shift_in"]
            v = np.where(u >= 0, u, p["slope"] * u) + p["shift_out"]
    return v


def direction(steps: list[Node], channels: int) -> np.ndarray:
    """Of each channel: 1 if the path never falls, -1 if it never rises, 0 where neither is sure."""
    sign = np.ones(channels, np.int64)
    for step in steps:
        if step.op == "affine":
            sign = sign * np.where(step.params["scale"] >= 0, 1, -1)
        elif step.op != "clip":
            sign = sign * (step.params["slope"] >= 0)
    return sign


def tables(
    steps: list[Node], low: np.ndarray, high: np.ndarray
) -> Iterator[tuple[slice, int, np.ndarray]]:
    """The path on every integer: (channels, first integer, values [channels, n]), in chunks.

    All channels of a chunk stretch from the least `low` to the greatest `high`; beyond a channel's
    own bounds its values stay as they are there.
    """
    first, last = int(low.min()), int(high.max())
    integers = np.arange(first, last + 1, dtype=np.float64)[None]
    height = max(1, _CHUNK // integers.size)
    for start in range(0, len(low), height):
        channels = slice(start, min(start + height, len(low)))
        inside = np.clip(integers, low[channels, None], high[channels, None])
        yield channels, first, evaluate(steps, inside, channels)


def changes(
    steps: list[Node], channel: int, low: int, high: int, holds: Callable[[float], bool]
) -> tuple[bool, list[int]]:
    """Where a monotone condition on the path's end changes between `low` and `high`, by bisection.

    Returns whether it holds at `low`, and each integer at which the answer differs from the one
    before it.
    """
    one = slice(channel, channel + 1)

    def at(steps: list[Node], integer: int) -> float:
        return float(evaluate(steps, np.array([[integer]], np.float64), one)[0, 0])

    def bisect(condition: Callable[[int], bool], a: int, b: int) -> int:
        before = condition(a)
        while b - a > 1:
            middle = (a + b) // 2
            a, b = (middle, b) if condition(middle) == before else (a, middle)
        return b

    starts = [low]
    for index, step in enumerate(steps):
        if step.op in _MONOTONE:
            continue
        shift = float(step.params["shift_in"][channel]) if step.op == "rprelu" else 0.0

        def right_of_kink(integer: int, index: int = index, shift: float = shift) -> bool:
            return at(steps[:index], integer) + shift >= 0

        for a, b in zip(list(starts), [*(s - 1 for s in starts[1:]), high], strict=True):
            if right_of_kink(a) != right_of_kink(b):
                starts.append(bisect(right_of_kink, a, b))
        starts.sort()

    def condition(integer: int) -> bool:
        return holds(at(steps, integer))

    found, last = [], condition(low)
    for a, b in zip(starts, [*(s - 1 for s in starts[1:]), high], strict=True):
        if condition(a) != last:
            found.append(a)
        if condition(a) != condition(b):
            found.append(bisect(condition, a, b))
        last = condition(b)
    return condition(low), found
