"""Shapes of lowered graphs: what a file leaves out and every session infers anew."""

from __future__ import annotations

from signbit.compiler.ir import READING, Graph, Node, Value, conv_output_size
from signbit.errors import CompileError

_LIMIT = 1 << 24  # of a length: far beyond any image, far below what overflows


def infer_shapes(graph: Graph, shape: tuple[int, int, int]) -> None:
    """Set the shape of every value of a lowered graph, given the input's (C, H, W).

    Raises CompileError, naming the layer, where an image is smaller than a window, where two
    shapes that meet do not fit, or where a flat output would have more than one pixel.
    """
    graph.input.shape = shape
    for node in graph.nodes:
        spatial = output_size(node)
        for value in node.outputs:
            value.shape = (value.channels, *spatial)
        for step in node.epilogue:
            if step.kind in READING:
                check_broadcast(node, step.kind, step.value.shape[1:], spatial)
    for value, flat in zip(graph.outputs, graph.flat_outputs, strict=True):
        if flat and value.shape[1:] != (1, 1):
            raise CompileError(
                f"{value.name}: this output is a vector, but has {value.shape[1]}x{value.shape[2]} "
                "pixels for an image of this size: use the size that the model was compiled for"
            )


def following(graph: Graph) -> set[Value]:
    """The values of a graph, captured or lowered, whose height and width follow the image's.

    All others are of one size for images of every size, as behind a global pool.
    """
    found = {graph.input}
    for node in graph.nodes:
        sources = node.inputs
        if node.op in ("global_avg_pool", "global_sum", "adaptive_pool"):
            continue
        if node.op == "resize":
            if node.attrs["out_h"]:
                continue
            sources = node.inputs[-1:]  # the map whose size it takes, or its own
        if not found.isdisjoint(sources):
            found.update(node.outputs)
    return found


def check_broadcast(node: Node, kind: str, read: tuple[int, int], spatial: tuple[int, int]) -> None:
    """Raise CompileError unless a map of size `read` can be added to one of size `spatial`."""
    if read not in (spatial, (1, 1)):
        verb = "adds" if kind == "add" else "multiplies"
        raise CompileError(f"{node.path}: {verb} a map of {read} and one of {spatial}")


def output_channels(node: Node) -> int:
    """Channels of what a lowered node computes."""
    channels = node.inputs[0].channels
    if node.op in ("conv_b1", "conv_q8", "conv_shift"):
        return node.attrs["out_channels"]
    if node.op == "channels":
        return node.params["index"].size
    if node.op == "pixel_shuffle":
        return channels // node.attrs["factor"] ** 2
    return channels


def output_size(node: Node) -> tuple[int, int]:
    """Height and width of what a lowered node computes, from the shapes of its inputs.

    Raises CompileError, naming the layer, for attributes and inputs that give none.
    """
    _, height, width = node.inputs[0].shape
    a = node.attrs
    if node.op == "pointwise":
        size = height, width
    elif node.op == "channels":
        for value in node.inputs:
            if value.shape[1:] != (height, width):
                raise CompileError(
                    f"{node.path}: joins maps of {height}x{width} and "
                    f"{value.shape[1]}x{value.shape[2]} pixels"
                )
        size = height, width
    elif node.op == "global_avg_pool":
        size = 1, 1
    elif node.op == "global_sum":
        if height * width != a["area"]:
            raise CompileError(
                f"{node.path}: this program averages maps of {a['area']} pixels, not of "
                f"{height}x{width}: use the image size that it was compiled for"
            )
        size = 1, 1
    elif node.op == "adaptive_pool":
        size = a["out_h"], a["out_w"]
    elif node.op == "pixel_shuffle":
        if a["factor"] < 1:
            raise CompileError(f"{node.path}: factor is {a['factor']}")
        size = height * a["factor"], width * a["factor"]
    elif node.op == "resize":
        like = node.inputs[1].shape[1:] if len(node.inputs) > 1 else None
        size = resized(node, (height, width), like)
    else:
        size = window_size(node, height, width)
    if not 1 <= min(size) <= max(size) <= _LIMIT:
        raise CompileError(f"{node.path}: gives a map of {size[0]}x{size[1]} pixels")
    return size


def resized(node: Node, size: tuple[int, int], like: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width behind a `resize` of a map of `size`; `like`: its second input's."""
    a = node.attrs
    if like is not None:
        return like
    if a["scale_h"] and a["scale_w"]:
        return a["scale_h"] * size[0], a["scale_w"] * size[1]
    return a["out_h"], a["out_w"]


def window_size(node: Node, height: int, width: int) -> tuple[int, int]:
    """Height and width behind a convolution or a pooling window. Raises CompileError."""
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
            a.get("ceil_mode", 0),
        )
        for length, axis in ((height, "h"), (width, "w"))
    )
    if min(size) < 1:
        raise CompileError(
            f"{node.path}: its window does not fit into an image of {height}x{width}"
        )
    return size
