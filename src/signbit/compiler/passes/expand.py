"""Layers fall apart into sums and per-channel steps.

Bits that a real-valued layer reads become real numbers in a node `real` of their own. A binary
convolution becomes `conv_b1` (an integer) and `affine` (its scale); one of 8 or 4 bits `quant8`,
`conv_q8`, `affine`; a batch norm `affine`. Nothing is folded yet: the thresholds are cut on the
path as the model computes it, one rounding where it has one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from signbit.compiler.ir import Graph, Node, Type, Value
from signbit.errors import CompileError

_KEPT = (
    "affine", "clip", "sigmoid", "add", "mul", "int4_add", "max_pool", "avg_pool",
    "global_avg_pool", "adaptive_pool", "channels", "resize", "pixel_shuffle",
)  # fmt: skip
_READ_BITS = ("binary_conv2d", "max_pool", "global_avg_pool", "pixel_shuffle")


def expand(graph: Graph) -> Graph:
    """Replace layers by integer convolutions and steps. Raises CompileError, naming the layer,
    for what has no lowering."""
    nodes: list[Node] = []
    real: dict[Value, Value] = {}
    for node in graph.nodes:
        inputs = list(node.inputs)
        # the second map of a resize is read for its size only
        for at in () if _reads_bits(node) else range(1 if node.op == "resize" else len(inputs)):
            bits = inputs[at]
            if bits.type == Type.B1:
                if bits not in real:
                    real[bits] = Value(f"{bits.name}:real", Type.F32, bits.shape)
                    nodes.append(Node("real", node.path, [bits], [real[bits]]))
                inputs[at] = real[bits]
        nodes += _expand(replace(node, inputs=inputs))
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
    if node.op in ("prelu", "rprelu"):
        return [replace(node, attrs={})]
    if node.op in ("add", "mul"):
        _check_broadcast(node)
    if node.op in _KEPT:
        return [node]
    raise CompileError(f"{node.path}: {node.op} cannot be lowered")


def batch_norm(params: dict[str, np.ndarray], eps: float) -> dict[str, np.ndarray]:
    """Scale and bias of a batch norm in evaluation, in float64, in PyTorch's order."""
    scale = params["gain"] * (1.0 / np.sqrt(params["var"] + eps))
    return {"scale": scale, "bias": params["bias"] - params["mean"] * scale}


def _reads_bits(node: Node) -> bool:
    """Whether a node takes its inputs as they are."""
    if node.op == "channels":
        return all(value.type == Type.B1 for value in node.inputs)
    return node.op in _READ_BITS or (node.op == "resize" and node.attrs["mode"] == 0)


def _check_broadcast(node: Node) -> None:
    """One of two maps that are added or multiplied has the shape of the result."""
    out = node.outputs[0].shape
    if out not in [value.shape for value in node.inputs]:
        shapes = " and ".join(str(value.shape) for value in node.inputs)
        raise CompileError(
            f"{node.path}: meets maps of {shapes}; one of them must have the shape of the result"
        )


def _sums(node: Node) -> Value:
    return Value(f"{node.outputs[0].name}:sum", Type.I32, node.outputs[0].shape)


def _binary_conv(node: Node) -> list[Node]:
    sums = _sums(node)
    weight, scale = node.params["weight"], node.params["scale"]
    affine = {"scale": scale, "bias": node.params.get("bias", np.zeros_like(scale))}
    return [
        Node("conv_b1", node.path, node.inputs, [sums], node.attrs, {"weight": weight}),
        Node("affine", node.path, [sums], node.outputs, {}, affine),
    ]


def _quant_conv(node: Node) -> list[Node]:
    source = node.inputs[0]
    quantised = Value(f"{node.outputs[0].name}:u8", Type.U8, source.shape)
    sums = _sums(node)
    attrs = dict(node.attrs)
    quant8 = {
        "inv_scale": attrs.pop("inv_input_scale"),
        "zero_point": attrs["zero_point"],
        "levels": 2 ** attrs.pop("bits") - 1,
    }
    scale = node.params["scale"]
    affine = {"scale": scale, "bias": node.params.get("bias", np.zeros_like(scale))}
    return [
        Node("quant8", node.path, [source], [quantised], quant8),
        Node("conv_q8", node.path, [quantised], [sums], attrs, {"weight": node.params["weight"]}),
        Node("affine", node.path, [sums], node.outputs, {}, affine),
    ]
