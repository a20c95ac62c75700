"""Data movement: chains of it become one, and signs move in front of it, so that bits are moved.

A sign works on each number alone, and so do the per-channel steps before it: they can as well be
taken before channels are joined, chosen or reordered, before nearest-neighbour resizing, and before
a pixel shuffle. There the sign often becomes a threshold on a convolution's sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from signbit.compiler.ir import Graph, Node, Type, Value
from signbit.compiler.passes.paths import walk_up

# of each input of a movement: which of its output's channels says what holds for each channel
_Rows = list[np.ndarray]


def compose_channels(graph: Graph) -> Graph:
    """Let each `channels` read the maps that those before it read."""
    producer: dict[Value, Node] = {}
    nodes = []
    for node in graph.nodes:
        if node.op == "channels":
            node = _composed(node, producer)
        producer.update(dict.fromkeys(node.outputs, node))
        nodes.append(node)
    return replace(graph, nodes=nodes)


def _composed(node: Node, producer: dict[Value, Node]) -> Node:
    sources: list[tuple[Value, int]] = []  # of each channel that the node could choose
    for value in node.inputs:
        before = producer.get(value)
        if before is None or before.op != "channels":
            sources += [(value, channel) for channel in range(value.channels)]
            continue
        known = [(v, channel) for v in before.inputs for channel in range(v.channels)]
        sources += [known[at] for at in before.params["index"].tolist()]
    chosen = [sources[at] for at in node.params["index"].tolist()]
    inputs = list(dict.fromkeys(value for value, _ in chosen))
    starts = np.cumsum([0, *(value.channels for value in inputs)]).tolist()
    first = dict(zip(inputs, starts, strict=False))
    index = np.array([first[value] + channel for value, channel in chosen], np.int32)
    return replace(node, inputs=inputs, params={"index": index})


def move_signs(graph: Graph) -> Graph:
    """Take signs before data movement where each input channel then has one threshold."""
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += _moved(graph, node) if node.op == "sign" else [node]
    return replace(graph, nodes=nodes)


def _moved(graph: Graph, sign: Node) -> list[Node]:
    source, steps = walk_up(graph, sign.inputs[0])
    move = graph.producer(source)
    if source.type != Type.F32 or move is None or move.op not in _ROWS:
        return [sign]
    rows = _ROWS[move.op](move)
    steps = [*steps, sign]
    if rows is None or not all(_agree(steps, move, rows)):
        return [sign]
    nodes: list[Node] = []
    bits: list[Value] = []
    for number, (value, row) in enumerate(zip(_moved_inputs(move), rows, strict=True)):
        for step in steps:
            last = step is sign
            kind = Type.B1 if last else Type.F32
            name = f"{step.outputs[0].name}:before{number}"
            out = Value(name, kind, value.shape)
            params = {key: array[row] for key, array in step.params.items()}
            copy = Node(step.op, step.path, [value], [out], step.attrs, params)
            # a movement may stand before this one
            nodes += _moved(replace(graph, nodes=[*graph.nodes, *nodes]), copy) if last else [copy]
            value = out
        bits.append(value)
    others = move.inputs[len(bits) :]
    return [*nodes, replace(move, inputs=[*bits, *others], outputs=sign.outputs)]


def _moved_inputs(move: Node) -> list[Value]:
    """The maps that are moved, without one that is read for its size."""
    return move.inputs[:1] if move.op == "resize" else move.inputs


def _agree(steps: list[Node], move: Node, rows: _Rows) -> list[bool]:
    """Of each output channel: whether every copy of its source wants the same steps."""
    if move.op != "channels":
        return [True]
    spread = np.concatenate(rows)[move.params["index"]]
    return [
        np.array_equal(array, array[spread]) for step in steps for array in step.params.values()
    ]


def _channel_rows(move: Node) -> _Rows:
    index = move.params["index"]
    total = sum(value.channels for value in move.inputs)
    rows = np.zeros(total, np.int64)  # what nobody chooses may have any threshold
    rows[index] = np.arange(index.size)
    return np.split(rows, np.cumsum([value.channels for value in move.inputs])[:-1])


def _resize_rows(move: Node) -> _Rows | None:
    return [np.arange(move.outputs[0].channels)] if move.attrs["mode"] == 0 else None


def _shuffle_rows(move: Node) -> _Rows:
    return [np.repeat(np.arange(move.outputs[0].channels), move.attrs["factor"] ** 2)]


_ROWS: dict[str, Callable[[Node], _Rows | None]] = {
    "channels": _channel_rows,
    "resize": _resize_rows,
    "pixel_shuffle": _shuffle_rows,
}
