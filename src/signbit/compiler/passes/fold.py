"""Chains of affine maps become one: weight scales, dequantisation, batch norms."""

from __future__ import annotations

from dataclasses import replace

from signbit.compiler.ir import Graph, Node


def fold_affine(graph: Graph) -> Graph:
    """Merge each `affine` into the one before it where nobody else reads what is between them."""
    nodes: list[Node] = []
    for node in graph.nodes:
        source = node.inputs[0] if node.inputs else None
        before = next((n for n in nodes if source in n.outputs), None)
        alone = source not in graph.outputs and len(graph.consumers(source)) == 1
        if node.op != "affine" or before is None or before.op != "affine" or not alone:
            nodes.append(node)
            continue
        first, second = before.params, node.params
        params = {
            "scale": first["scale"] * second["scale"],
            "bias": first["bias"] * second["scale"] + second["bias"],
        }
        nodes[nodes.index(before)] = Node(
            "affine", node.path, before.inputs, node.outputs, {}, params
        )
    return replace(graph, nodes=nodes)
