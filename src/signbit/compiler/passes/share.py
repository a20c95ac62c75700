"""8-bit layers that read the same value at the same scale share its 8-bit form; 4-bit ones too."""

from __future__ import annotations

from dataclasses import replace

from signbit.compiler.ir import Graph, Node, Value


def share_quant8(graph: Graph) -> Graph:
    """Keep one `quant8` for each input, scale, zero point and number of levels."""
    known: dict[tuple[int, float, int, int], Value] = {}
    same: dict[Value, Value] = {}
    nodes = []
    for node in graph.nodes:
        if node.op == "quant8":
            numbers = (node.attrs[name] for name in ("inv_scale", "zero_point", "levels"))
            key = (id(node.inputs[0]), *numbers)
            if key in known:
                same[node.outputs[0]] = known[key]
                continue
            known[key] = node.outputs[0]
        inputs = [same.get(value, value) for value in node.inputs]
        nodes.append(Node(node.op, node.path, inputs, node.outputs, node.attrs, node.params))
    return replace(graph, nodes=nodes)
