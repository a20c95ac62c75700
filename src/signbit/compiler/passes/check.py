"""The last pass changes nothing: it checks that a lowered graph keeps every rule of `ir`."""

from __future__ import annotations

import numpy as np

from signbit.compiler.ir import INT32_MAX, LOWERED_OPS, MAX_STEPS, STEPS, Graph, Node, Type, Value
from signbit.compiler.passes.cast import INTEGERS
from signbit.compiler.passes.paths import reachable
from signbit.compiler.shapes import output_size
from signbit.errors import CompileError

_INPUT_TYPES = {
    "conv_b1": (Type.B1,),
    "conv_q8": (Type.U8,),
    "max_pool": (Type.F32, Type.B1),
    "avg_pool": (Type.F32,),
    "global_avg_pool": (Type.F32, Type.B1),
    "pointwise": (Type.F32,),
}
_WRITTEN = {"threshold": (Type.B1,), "sign": (Type.B1,), "quant8": (Type.U8,)}
_FROM_INT = ("threshold", "quant4_shift", "quant4_ladder")
_TO_INT4 = ("quant4_shift", "quant4_ladder")
_WINDOW = ("kernel", "stride", "pad", "dilation")
MAX_K = 65_535  # products of a sum: the engine counts matches in 16 bits
MAX_WINDOW = 4_096  # a kernel's, stride's, padding's and dilation's pixels in a file


def check(graph: Graph) -> Graph:
    """Raise CompileError, naming the layer, unless `graph` is a program that the engine can run."""
    written = {graph.input}
    for node in graph.nodes:
        _check_node(node)
        for value in node.inputs:
            _require(value in written, node, f"reads {value.name} before it is written")
        for value in node.outputs:
            _require(value not in written, node, f"writes {value.name} a second time")
            written.add(value)
    for value in graph.outputs:
        if value not in written or value.type != Type.F32:
            raise CompileError(f"{value.name}: an output must be a real-valued result")
    return graph


def _require(condition: bool, node: Node, message: str) -> None:
    if not condition:
        raise CompileError(f"{node.path}: {message}")


def _check_node(node: Node) -> None:
    spec = LOWERED_OPS.get(node.op)
    _require(spec is not None, node, f"{node.op} is not an operation of the engine")
    _require(
        set(node.attrs) == set(spec.attrs), node, f"{node.op} has attributes {sorted(node.attrs)}"
    )
    optional = {"flip"} & set(node.params)
    _require(
        set(node.params) == set(spec.params) - {"flip"} | optional, node, "a tensor is missing"
    )
    source = node.inputs[0]
    _require(
        source.type in _INPUT_TYPES[node.op], node, f"{node.op} cannot read {source.type.name}"
    )
    channels = source.channels
    if node.op in ("conv_b1", "conv_q8"):
        _check_conv(node)
        channels = node.attrs["out_channels"]
    size = output_size(node)
    if "pad_h" in node.attrs and node.op.endswith("pool"):
        fits = all(2 * node.attrs[f"pad_{a}"] <= node.attrs[f"kernel_{a}"] for a in "hw")
        _require(fits, node, "its padding is more than half of its kernel")
        _require(
            node.op == "max_pool" or not node.attrs["pad_h"] + node.attrs["pad_w"], node, "pads"
        )
    _check_types(node, node.params)
    for array in node.params.values():
        _require(
            node.op != "max_pool" or array.shape == (channels,), node, "flip has another length"
        )
    for value in node.outputs:
        _require(value.shape == (channels, *size), node, f"{value.name} has shape {value.shape}")
    if spec.epilogue:
        _require(bool(node.outputs), node, "computes what nobody reads")
        _check_epilogue(node, channels, size)
    else:
        kept = source.type if node.op == "max_pool" else Type.F32
        _require(not node.epilogue and len(node.outputs) == 1, node, f"{node.op} has no epilogue")
        _require(node.outputs[0].type == kept, node, f"{node.op} cannot write that type")


def _check_types(node: Node, params: dict[str, np.ndarray]) -> None:
    for name, array in params.items():
        real = name not in INTEGERS and array.dtype in (np.float32, np.float64)
        _require(real or array.dtype == INTEGERS.get(name), node, f"{name} is {array.dtype}")


def _check_conv(node: Node) -> None:
    a, weight = node.attrs, node.params["weight"]
    groups = a["groups"]
    shape = (a["out_channels"], a["in_channels"] // groups, a["kernel_h"], a["kernel_w"])
    divides = a["in_channels"] % groups == a["out_channels"] % groups == 0
    _require(divides, node, f"groups={groups} does not divide its channels")
    _require(weight.shape == shape, node, f"weight has shape {weight.shape}, not {shape}")
    _require(node.inputs[0].channels == a["in_channels"], node, "reads another number of channels")
    taps = weight[0].size
    way_out = "use fewer inputs, more groups or a smaller kernel"
    _require(taps <= MAX_K, node, f"sums {taps} products, more than {MAX_K}: {way_out}")
    for name in (f"{kind}_{axis}" for kind in _WINDOW for axis in "hw"):
        what = f"{name} is {a[name]}, more than {MAX_WINDOW}: use a smaller one"
        _require(a[name] <= MAX_WINDOW, node, what)
    if node.op == "conv_b1":
        _require(bool((np.abs(weight) == 1).all()), node, "weights must be -1 or +1")
        _require(a["pad_value"] in (-1, 0, 1), node, "pad_value must be -1, 0 or +1")
    else:
        _require(0 <= a["zero_point"] <= 255, node, "zero_point must be 0..255")
        low, high = reachable(node)
        _require(
            -low.min() <= INT32_MAX >= high.max(), node, "its sums leave 32 bits: use fewer inputs"
        )


def _check_epilogue(node: Node, channels: int, size: tuple[int, int]) -> None:
    steps = len(node.epilogue)
    _require(steps <= MAX_STEPS, node, f"has {steps} steps, more than {MAX_STEPS}")
    integer, four_bits = node.op != "pointwise", False
    for step in node.epilogue:
        spec = STEPS.get(step.kind)
        _require(spec is not None, node, f"{step.kind} is not a step of the engine")
        complete = set(step.attrs) == set(spec.attrs) and set(step.params) == set(spec.params)
        _require(complete, node, f"{step.kind} lacks attributes or tensors")
        _check_types(node, step.params)
        for name, array in step.params.items():
            rows = (channels, 15) if name == "cuts" else (channels,)
            _require(array.shape == rows, node, f"{step.kind}.{name} has shape {array.shape}")
        if step.value is not None:
            fits = step.value.shape == (channels, *size)
            _require(fits, node, f"{step.kind} of a value of shape {step.value.shape}")
        if step.kind in _FROM_INT:
            _require(integer, node, f"{step.kind} of a real number")
        elif step.kind not in ("affine", "add", "store"):
            _require(not integer, node, f"{step.kind} of an integer")
        if step.kind == "add":
            _check_add(node, step.value, integer)
        elif step.kind == "store":
            kind = Type.I4 if four_bits else Type.F32
            _require(integer == four_bits and step.value.type == kind, node, "stores another type")
        elif step.kind in _WRITTEN:
            _require(
                step.value.type in _WRITTEN[step.kind], node, f"{step.kind} writes another type"
            )
        integer = integer and step.kind != "affine"
        four_bits = step.kind in _TO_INT4 or (four_bits and step.kind in ("store", "threshold"))


def _check_add(node: Node, value: Value, integer: bool) -> None:
    _require(value.type == (Type.I4 if integer else Type.F32), node, "adds different types")
    _require(value in node.inputs[1:], node, f"adds {value.name}, which is not among its inputs")
