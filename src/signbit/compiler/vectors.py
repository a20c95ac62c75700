"""Vectors that are a map in truth: sizes at which the program would not be the model.

Flattening is a matter of names in a program (`passes/simplify.py`), and a linear layer behind a
flattened map of H x W a convolution of that kernel. For an image of another size it therefore gives
several pixels where the model gives no result at all. Sessions notice that where such pixels reach
an output that is a vector, or meet a map of another size; what would hide them is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from signbit.compiler.ir import Graph, Node, Value
from signbit.compiler.shapes import following

_KEEP_SIZE = (
    "sign", "relu", "prelu", "rprelu", "batch_norm", "affine", "clip", "sigmoid", "identity",
    "flatten", "channels", "int4_add", "binary_linear", "quant_linear",
)  # fmt: skip


def lost_sizes(graph: Graph, windows: Iterable[Node]) -> list[tuple[Node, str]]:
    """The nodes of a captured graph whose result is one pixel for the example only, with nothing
    behind them that makes the engine refuse other images, and what hides that.

    `windows`: poolings whose window covers the example's map, and in the model any map.
    """
    grows = following(graph)
    starts = {node for node in windows if node.inputs[0] in grows}
    for node in graph.nodes:
        if node.op.endswith(("flatten", "_linear")) and node.inputs[0] in grows:
            starts.add(node)
    found = []
    for node in graph.nodes:
        if node in starts:
            hidden = _hidden_by(graph, node.outputs[0])
            if hidden is not None:
                found.append((node, hidden))
    return found


def _hidden_by(graph: Graph, value: Value) -> str | None:
    """What hides the size of `value`, of one pixel for the example; None if the engine sees it."""
    hidden: str | None = None
    pending, seen = [value], {value}
    while pending:
        value = pending.pop()
        for output, flat in zip(graph.outputs, graph.flat_outputs, strict=True):
            if output is value:
                if flat:
                    return None  # the engine refuses a vector of several pixels
                hidden = hidden or "an output that is a map"
        for node in graph.consumers(value):
            if node.op in ("add", "mul") and any(v.shape[1:] != (1, 1) for v in node.inputs):
                continue  # the engine refuses maps of two sizes
            if node.op in ("add", "mul") or _keeps_size(node):
                result = node.outputs[0]
                if result not in seen:
                    seen.add(result)
                    pending.append(result)
            else:
                hidden = hidden or node.path
    return hidden


def _keeps_size(node: Node) -> bool:
    """Whether a node gives a map of its input's size, for every size."""
    if node.op in _KEEP_SIZE:
        return True
    a = node.attrs
    return "stride_h" in a and all(
        a[f"stride_{axis}"] == 1
        and 2 * a[f"pad_{axis}"] == (a[f"kernel_{axis}"] - 1) * a.get(f"dilation_{axis}", 1)
        for axis in "hw"
    )
