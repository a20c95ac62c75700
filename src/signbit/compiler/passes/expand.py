"""Layers fall apart into sums and per-channel steps.

A binary convolution becomes `conv_b1` (an integer) and `affine` (its scale); an 8-bit one `quant8`,
`conv_q8`, `affine`; a batch norm `affine`. Nothing is folded yet: the thresholds are cut on the
path as the model computes it, one rounding where it has one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from signbit.compiler.ir import Graph, Node, Type, Value
from signbit.errors import CompileError

_STEPS = ("rprelu", "prelu", "add", "int4_add", "max_pool", "avg_pool", "global_avg_pool")


def expand(graph: Graph) -> Graph:
    """Replace layers by integer convolutions and steps. Raises CompileError, naming the layer,
    for real-valued operations on bits."""
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += _expand(node)
    for value in graph.outputs:
        if value.type == Type.B1:
            raise CompileError(
                f"{value.name}: the model returns bits; end it with a layer that gives real numbers"
            )
        if value is graph.input:
            raise CompileError("the model returns its input: there is nothing to compile")
    return replace(graph, nodes=nodes)


def _expand(node: Node) -> list[Node]:
    if node.op == "binary_conv2d":
        return _binary_conv(node)
    if node.op == "quant_conv2d":
        return _quant_conv(node)
    if node.op == "sign":
        bias = node.params.get("bias", np.zeros(node.outputs[0].channels))
        # +0.0 keeps the cut of a bias of 0 from being -0.0
        return [Node("sign", node.path, node.inputs, node.outputs, {}, {"cut": 0.0 - bias})]
    if node.op not in ("max_pool", "global_avg_pool"):
        _refuse_bits(node)
    if node.op == "batch_norm":
        return [
            Node(
                "affine",
                node.path,
                node.inputs,
                node.outputs,
                {},
                batch_norm(node.params, node.attrs["eps"]),
            )
        ]
    if node.op in _STEPS:
        return [node]
    raise CompileError(f"{node.path}: {node.op} cannot be lowered")


def batch_norm(params: dict[str, np.ndarray], eps: float) -> dict[str, np.ndarray]:
    """Scale and bias of a batch norm in evaluation, in float64, in PyTorch's order."""
    scale = params["gain"] * (1.0 / np.sqrt(params["var"] + eps))
    return {"scale": scale, "bias": params["bias"] - params["mean"] * scale}


def _refuse_bits(node: Node) -> None:
    if any(value.type == Type.B1 for value in node.inputs):
        raise CompileError(
            f"{node.path}: {node.op} reads bits; only binary layers, max-pooling and global "
            "average pooling can: remove it, or put it before the sign"
        )


def _sums(node: Node) -> Value:
    return Value(f"{node.outputs[0].name}:sum", Type.I32, node.outputs[0].shape)


def _binary_conv(node: Node) -> list[Node]:
    sums = _sums(node)
    weight, scale = node.params["weight"], node.params["scale"]
    affine = {"scale": scale, "bias": np.zeros_like(scale)}
    return [
        Node("conv_b1", node.path, node.inputs, [sums], node.attrs, {"weight": weight}),
        Node("affine", node.path, [sums], node.outputs, {}, affine),
    ]


def _quant_conv(node: Node) -> list[Node]:
    source, nodes = node.inputs[0], []
    if source.type == Type.B1:
        if source.shape[1:] != (1, 1):
            _refuse_bits(node)
        # The mean over one pixel: bits as real numbers.
        real = Value(f"{node.outputs[0].name}:real", Type.F32, source.shape)
        nodes.append(Node("global_avg_pool", node.path, [source], [real]))
        source = real
    quantised = Value(f"{node.outputs[0].name}:u8", Type.U8, source.shape)
    sums = _sums(node)
    attrs = dict(node.attrs)
    quant8 = {"inv_scale": attrs.pop("inv_input_scale"), "zero_point": attrs["zero_point"]}
    scale = node.params["scale"]
    affine = {"scale": scale, "bias": node.params.get("bias", np.zeros_like(scale))}
    return [
        *nodes,
        Node("quant8", node.path, [source], [quantised], quant8),
        Node("conv_q8", node.path, [quantised], [sums], attrs, {"weight": node.params["weight"]}),
        Node("affine", node.path, [sums], node.outputs, {}, affine),
    ]
