"""8-bit layers that read the same value at the same scale share its 8-bit form."""

from __future__ import annotations

from dataclasses import replace

from signbit.compiler.ir import Graph, Node, Value


def share_quant8(graph: Graph) -> Graph:
    """Keep one `quant8` for each input, scale and zero point."""
    known: dict[tuple[int, float, int], Value] = {}
    same: dict[Value, Value] = {}
    nodes = []
    for node in graph.nodes:
        if node.op == "quant8":
            key = (id(node.inputs[0]), node.attrs["inv_scale"], node.attrs["zero_point"])
            if key in known:
                same[node.outputs[0]] = known[key]
                continue
            known[key] = node.outputs[0]
        inputs = [same.get(value, value) for value in node.inputs]
        nodes.append(Node(node.op, node.path, inputs, node.outputs, node.attrs, node.params))
    return replace(graph, nodes=nodes)
