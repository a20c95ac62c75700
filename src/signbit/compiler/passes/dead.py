"""Nodes that nobody reads are removed."""

from __future__ import annotations

from dataclasses import replace

from signbit.compiler.ir import Graph


def remove_dead(graph: Graph) -> Graph:
    """Drop every node whose outputs reach no output of the graph."""
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return replace(graph, nodes=kept[::-1])
