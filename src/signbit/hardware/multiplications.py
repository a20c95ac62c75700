"""Multiplications of captured graphs, by A&B BNN's convention and strictly.

**MO** is the count that A&B BNN publishes (arXiv 2403.03739), for one image, of what happens
between stem and head. It counts

* real and 8-bit convolutions: their MACs; binary weights add and subtract, also real numbers;
* batch norm: one a number, unless it folds into the weights of a real convolution before it;
* factors of branches (alpha): one a number;
* factors before signs (beta), unless they stand behind a mask layer: one a number;
* slopes of activations: one a number;
* averages over windows, and products of two maps: one a number of the result.

It does not count the stem, the classifier, the average before it, and the scales that binary
weights have, one an output channel. Three habits of the published figures are rules here, because
nothing in a network says them:

* Multiplying by a power of two is a shift, and free, in a network of A&B BNN only. With batch norm
  or factors before signs the same 2x2 average or alpha counts.
* Factors before signs count once a number of the convolution's *input*, but once a number of its
  *output* where it changes the number of channels: ReActNet-A is published with the one,
  ReActNet-18 with the other.
* Activations beside the stem and the head (a PReLU before the last average) belong to these.

This gives the published 4.60M and 14.65M of ReActNet-18 and -A without batch norm, 22.37M and
20.86M of ReActNet-18 and Bi-Real-18 with it, and 0 for A&B BNN's ReActNets and XnorNet-18. Not
reproduced: its Bi-Real networks, published as 0, whose released code downsamples with real 1x1
convolutions, which are counted here as everywhere else (19.27M); with batch norm ReActNet-A
(10.79M), Bi-Real-34 (22.20M) and XNOR-Net-18 (3.20M). Of a model that cannot be traced neither stem
nor head is known: all of it counts.

The **strict** count takes every multiplication of every layer as the layer is written, stem, head
and the scales of weights included, by kind (`KINDS`). A power of two, whichever network has it, is
a shift. What a compiler folds away still counts. Not counted: the inner arithmetic of sigmoids, of
bilinear resizing and of INT4 additions, and the normalisation of pixels before the network.

Imports NumPy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from signbit.compiler.ir import Graph, Node, Type, Value

# what multiplies: name to a description
KINDS = {
    "macs": "MACs of real, 8- and 4-bit layers",
    "weight_scales": "scales of 1-, 4- and 8-bit weights",
    "quantization": "quantisation of inputs",
    "batch_norm": "batch norm",
    "factors": "constant factors (alpha)",
    "sign_factors": "factors before signs (beta)",
    "slopes": "slopes of activations",
    "averages": "average pooling",
    "products": "products of two maps",
}
_REAL = ("conv2d", "linear", "quant_conv2d", "quant_linear")
_BINARY = ("binary_conv2d", "binary_linear")


@dataclass(frozen=True)
class Multiplications:
    """Multiplications of one node for one image.

    Attributes:
        mo: by A&B BNN's convention.
        strict: kind (`KINDS`) to number; kinds without any are left out.
    """

    mo: int
    strict: dict[str, int]


def count_multiplications(graph: Graph) -> list[Multiplications]:
    """The multiplications of every node of a captured graph, in order."""
    outside = _stem(graph) | _head(graph)
    shifts_are_free = not any(
        node.op == "batch_norm" or node.attrs.get("scaled") for node in graph.nodes
    )
    found = []
    for node in graph.nodes:
        mo = 0 if id(node) in outside else _published(graph, node, shifts_are_free)
        strict = {kind: number for kind, number in _strict(node).items() if number}
        found.append(Multiplications(mo, strict))
    return found


def is_addition(node: Node) -> bool:
    """Whether a node adds and subtracts real numbers: binary weights with inputs of more bits."""
    return node.op in _BINARY and any(value.type != Type.B1 for value in node.inputs)


def macs(node: Node) -> int:
    """Multiply-accumulates of a convolution or linear layer for one image."""
    _, height, width = node.outputs[0].shape
    return int(node.params["weight"].size) * height * width


# --- the published convention ---


def _published(graph: Graph, node: Node, shifts_are_free: bool) -> int:
    size = _size(node.outputs[0])
    if node.op in _REAL:
        return macs(node)
    if node.op == "batch_norm":
        return 0 if any(before.op in _REAL for before in _before(graph, node)) else size
    if node.op == "sign":
        return _sign_factors(graph, node) if node.attrs.get("scaled") else 0
    if node.op == "affine":
        scale = np.abs(node.params["scale"])
        free = _is_shift(scale) if shifts_are_free else scale == 1
        return size // len(scale) * int((~free).sum())
    if node.op in ("prelu", "rprelu"):
        return 0 if shifts_are_free and node.attrs.get("power_of_two") else size
    if taps := _averaged(node):
        return 0 if shifts_are_free and _is_shift(np.array(taps)) else size
    return size if node.op == "mul" else 0


def _sign_factors(graph: Graph, node: Node) -> int:
    for reader in graph.consumers(node.outputs[0]):
        if reader.op in _BINARY and reader.attrs["in_channels"] != reader.attrs["out_channels"]:
            return _size(reader.outputs[0])
    return _size(node.outputs[0])


def _stem(graph: Graph) -> set[int]:
    """The ids of the nodes that the first sign needs; of none, if there is no sign."""
    first = next((node for node in graph.nodes if node.op == "sign"), None)
    wanted = set() if first is None else {value.name for value in first.inputs}
    stem = set()
    for node in reversed(graph.nodes):
        if any(value.name in wanted for value in node.outputs):
            stem.add(id(node))
            wanted |= {value.name for value in node.inputs}
    return stem


def _head(graph: Graph) -> set[int]:
    """The ids of the nodes from the last average on, or else from the last real layers on."""
    before_sign: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op == "sign" or any(value.name in before_sign for value in node.outputs):
            before_sign |= {value.name for value in node.inputs}
    if not before_sign:
        return set()
    behind = [
        node
        for node in graph.nodes
        if node.op != "sign" and not any(value.name in before_sign for value in node.outputs)
    ]
    first = [node for node in behind if node.op in ("global_avg_pool", "adaptive_pool")]
    first = first or [node for node in behind if node.op in _REAL]
    head = {id(node) for node in first}
    read = {value.name for node in first for value in node.outputs}
    for node in behind:
        if any(value.name in read for value in node.inputs):
            head.add(id(node))
            read |= {value.name for value in node.outputs}
    for node in first:
        for before in _before(graph, node):
            if before in behind and before.op == "prelu":
                head.add(id(before))
    return head


def _before(graph: Graph, node: Node) -> list[Node]:
    """The nodes that a node reads."""
    found = (graph.producer(value) for value in node.inputs)
    return [each for each in found if each is not None]


# --- strictly ---


def _strict(node: Node) -> dict[str, int]:
    size = _size(node.outputs[0])
    if node.op in _REAL or node.op in _BINARY:
        found = {"weight_scales": _scaled(size, node.params.get("scale"))}
        if node.op in _REAL:
            found["macs"] = macs(node)
        if "inv_input_scale" in node.attrs:
            found["quantization"] = sum(map(_size, node.inputs))
        return found
    if node.op == "batch_norm":
        return {"batch_norm": size}
    if node.op == "affine":
        return {"factors": _scaled(size, node.params["scale"])}
    if node.op == "sign":
        return {"sign_factors": size if node.attrs.get("scaled") else 0}
    if node.op in ("prelu", "rprelu"):
        return {"slopes": 0 if node.attrs.get("power_of_two") else size}
    if taps := _averaged(node):
        return {"averages": 0 if _is_shift(np.array(taps)) else size}
    return {"products": size} if node.op == "mul" else {}


def _scaled(size: int, scale: np.ndarray | None) -> int:
    """Multiplications of `size` numbers by a factor a channel; powers of two are shifts."""
    if scale is None:
        return 0
    return size // len(scale) * int((~_is_shift(scale)).sum())


def _averaged(node: Node) -> float:
    """How many numbers a node averages for one of its own; 0 if it averages none."""
    if node.op == "avg_pool":
        return node.attrs["kernel_h"] * node.attrs["kernel_w"]
    if node.op == "global_avg_pool" or (node.op == "adaptive_pool" and not node.attrs["take_max"]):
        return sum(map(_size, node.inputs)) / _size(node.outputs[0])
    return 0


def _is_shift(factor: np.ndarray) -> np.ndarray:
    """Which factors are 0 or powers of two, of either sign."""
    return np.isin(np.abs(np.frexp(factor)[0]), (0, 0.5))


def _size(value: Value) -> int:
    return math.prod(value.shape)
