"""Small graphs and models for the compiler's tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from signbit.compiler import reference
from signbit.compiler.capture import capture
from signbit.compiler.ir import Graph, Node, Type, Value
from signbit.compiler.passes import lower
from signbit.compiler.tracing import record
from signbit.nn.modes import evaluating


def conv_attrs(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, pad: int = 0, **other: int
) -> dict[str, int]:
    """Attributes of a convolution with a square window."""
    attrs = {"in_channels": inputs, "out_channels": outputs, "groups": 1}
    for axis in "hw":
        attrs |= {f"kernel_{axis}": kernel, f"stride_{axis}": stride, f"pad_{axis}": pad}
        attrs[f"dilation_{axis}"] = 1
    return attrs | other


def pool_attrs(op: str, kernel: int, stride: int, pad: int, **other: int) -> dict[str, int]:
    """Attributes of max_pool or avg_pool with a square window."""
    window = {"kernel": kernel, "stride": stride, "pad": pad}
    attrs = {f"{name}_{axis}": v for name, v in window.items() for axis in "hw"}
    if op == "max_pool":
        return attrs | {"dilation_h": 1, "dilation_w": 1, "ceil_mode": 0} | other
    return attrs | {"ceil_mode": 0, "count_include_pad": 0} | other


def path_graph(weight: np.ndarray, steps: list[Node], op: str = "conv_b1") -> Graph:
    """A graph of one 1x1 convolution with `weight` [O, I, 1, 1] and per-channel steps behind it.

    The steps' values are set here; the last one gives the output.
    """
    outputs, inputs = weight.shape[:2]
    source = Value("x", Type.B1 if op == "conv_b1" else Type.U8, (inputs, 1, 1))
    value = Value("sum", Type.I32, (outputs, 1, 1))
    extra = {"pad_value": 0} if op == "conv_b1" else {"zero_point": 3}
    nodes = [Node(op, "conv", [source], [value], conv_attrs(inputs, outputs, **extra))]
    nodes[0].params["weight"] = weight
    for index, step in enumerate(steps):
        kind = Type.B1 if step.op == "sign" else Type.F32
        step.inputs, value = [value], Value(f"step{index}", kind, (outputs, 1, 1))
        step.outputs = [value]
        nodes.append(step)
    return Graph(nodes, source, [value], [False])


def step(op: str, **params: np.ndarray) -> Node:
    """A per-channel step whose values are not known yet."""
    return Node(op, op, [], [], {}, {k: np.asarray(v, np.float64) for k, v in params.items()})


def check_in_float64(model: nn.Module, x: torch.Tensor, tolerance: float = 1e-9) -> Graph:
    """Both sides in float64: every bit equal, every output within `tolerance`.

    Returns the lowered graph.
    """
    model, x = model.double(), x.double()
    captured = capture(model, x)
    graph = lower(captured.graph, np.float64)
    outputs, values = reference.run(graph, x.numpy(), collect=True, precision=np.float64)
    with evaluating(model):
        expected = record(captured.module, x)
    named = {captured.values[k].name: v for k, v in expected.items() if k in captured.values}
    compared = 0
    for node in graph.nodes:
        for value in node.outputs:
            if value.type == Type.B1 and value.name in named:
                bits = (named[value.name] > 0).numpy().reshape(values[value.name].shape)
                np.testing.assert_array_equal(values[value.name] != 0, bits, value.name)
                compared += 1
    assert compared == sum(
        value.type == Type.B1 and ":" not in value.name
        for node in graph.nodes
        for value in node.outputs
    )
    for value, output in zip(captured.graph.outputs, outputs, strict=True):
        want = named[value.name].numpy()
        assert output.shape == want.shape
        np.testing.assert_allclose(output, want, rtol=tolerance, atol=tolerance)
    return graph
