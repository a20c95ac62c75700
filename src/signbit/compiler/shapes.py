"""Spatial shapes of lowered graphs: what a file leaves out and every session infers anew."""

from __future__ import annotations

from signbit.compiler.ir import Graph, Node, conv_output_size
from signbit.errors import CompileError


def infer_shapes(graph: Graph, shape: tuple[int, int, int]) -> None:
    """Set the shape of every value of a lowered graph, given the input's (C, H, W).

    Raises CompileError, naming the layer, where an image is smaller than a window or two shapes
    that are added differ.
    """
    graph.input.shape = shape
    for node in graph.nodes:
        spatial = output_size(node)
        for step in node.epilogue:
            if step.kind == "add" and step.value.shape[1:] != spatial:
                raise CompileError(
                    f"{node.path}: adds a map of {step.value.shape[1:]} to one of {spatial}"
                )
        for value in node.outputs:
            value.shape = (value.channels, *spatial)


def output_size(node: Node) -> tuple[int, int]:
    """Height and width of what a lowered node computes, from the shape of its first input."""
    _, height, width = node.inputs[0].shape
    if node.op == "pointwise":
        return height, width
    if node.op == "global_avg_pool":
        return 1, 1
    a = node.attrs
    for name, number in a.items():
        least = 1 if name.startswith(("kernel", "stride", "dilation")) else 0
        if name[-2:] in ("_h", "_w") and number < least:
            raise CompileError(f"{node.path}: {name} is {number}")
    size = tuple(
        conv_output_size(
            length,
            a[f"kernel_{axis}"],
            a[f"stride_{axis}"],
            a[f"pad_{axis}"],
            a.get(f"dilation_{axis}", 1),
        )
        for length, axis in ((height, "h"), (width, "w"))
    )
    if min(size) < 1:
        raise CompileError(
            f"{node.path}: its window does not fit into an image of {height}x{width}"
        )
    return size
