"""Identities vanish, linear layers become convolutions, a ReLU a PReLU.

Flattening is then a matter of names.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from signbit.compiler.ir import Graph, Node, Value
from signbit.errors import CompileError

_ELEMENTWISE = ("sign", "relu", "prelu", "rprelu", "clip", "sigmoid")


def simplify(captured: Graph) -> Graph:
    """A copy of a captured graph without identities, flattening and linear layers.

    A linear layer behind a flattened map of H x W becomes a convolution with a kernel of H x W; in
    between may stand layers that work on each number alone, with equal parameters for all pixels of
    a channel. Raises CompileError where anything else reads a flattened map of several pixels.
    """
    copies: dict[Value, Value] = {}

    def copy(value: Value) -> Value:
        if value not in copies:
            copies[value] = Value(value.name, value.type, value.shape)
        return copies[value]

    nodes = []
    for node in captured.nodes:
        if node.op in ("identity", "flatten"):
            copies[node.outputs[0]] = copy(node.inputs[0])
            continue
        inputs = [copy(value) for value in node.inputs]
        node = _on_the_map(node, inputs, copies)
        if node.op in ("binary_linear", "quant_linear", "linear"):
            node = _as_convolution(node, inputs[0])
        elif node.op == "relu":
            slope = {"slope": np.zeros(inputs[0].channels)}
            node = Node("prelu", node.path, node.inputs, node.outputs, {}, slope)
            _check_not_flat(node, inputs)
        else:
            _check_not_flat(node, inputs)
        nodes.append(
            Node(node.op, node.path, inputs, [copy(node.outputs[0])], node.attrs, node.params)
        )
    outputs = [copy(value) for value in captured.outputs]
    for before, after in zip(captured.outputs, outputs, strict=True):
        if before.shape != after.shape:
            raise CompileError(
                f"{before.name}: a flattened map of several pixels cannot be an output"
            )
    graph = Graph(nodes, copy(captured.input), outputs, list(captured.flat_outputs))
    return replace(graph, metadata=dict(captured.metadata), mean=captured.mean, std=captured.std)


def _on_the_map(node: Node, inputs: list[Value], copies: dict[Value, Value]) -> Node:
    """A layer that reads a flattened map as one that reads the map itself, where it can be."""
    if node.op not in _ELEMENTWISE or inputs[0].shape == node.inputs[0].shape:
        return node
    params = {name: array.reshape(inputs[0].channels, -1) for name, array in node.params.items()}
    if not all((array == array[:, :1]).all() for array in params.values()):
        return node
    value = node.outputs[0]
    copies[value] = Value(value.name, value.type, inputs[0].shape)
    params = {name: array[:, 0] for name, array in params.items()}
    return Node(node.op, node.path, inputs, node.outputs, node.attrs, params)


def _as_convolution(node: Node, source: Value) -> Node:
    channels, height, width = source.shape
    attrs = dict(node.attrs) | {
        "in_channels": channels,
        "kernel_h": height,
        "kernel_w": width,
        **dict.fromkeys(("stride_h", "stride_w", "dilation_h", "dilation_w", "groups"), 1),
        **dict.fromkeys(("pad_h", "pad_w"), 0),
    }
    if node.op == "binary_linear":
        attrs["pad_value"] = 0
    weight = node.params["weight"].reshape(-1, channels, height, width)
    op = "conv2d" if node.op == "linear" else node.op.replace("linear", "conv2d")
    return Node(op, node.path, [], node.outputs, attrs, node.params | {"weight": weight})


def _check_not_flat(node: Node, inputs: list[Value]) -> None:
    for before, after in zip(node.inputs, inputs, strict=True):
        if before.shape != after.shape:
            raise CompileError(
                f"{node.path}: reads a flattened map of {after.shape[1]}x{after.shape[2]} pixels; "
                "only signbit.nn.BinaryLinear and signbit.nn.QuantLinear can: put this layer "
                "before Flatten"
            )
