"""The last pass changes nothing: it checks that a lowered graph keeps every rule of `ir`."""

from __future__ import annotations

import numpy as np

from signbit.compiler.digits import MAX_SHIFT, MIN_SHIFT
from signbit.compiler.ir import (
    INT32_MAX,
    LOWERED_OPS,
    MAX_STEPS,
    READING,
    STEPS,
    Graph,
    Node,
    Step,
    Type,
)
from signbit.compiler.passes.cast import INTEGERS
from signbit.compiler.passes.paths import reachable
from signbit.compiler.shapes import check_broadcast, output_channels, output_size
from signbit.errors import CompileError

_INPUT_TYPES = {
    "conv_b1": (Type.B1,),
    "conv_q8": (Type.U8,),
    "conv_shift": (Type.U8, Type.I16, Type.I32),
    "max_pool": (Type.F32, Type.I16, Type.B1),
    "avg_pool": (Type.F32, Type.I16),
    "global_avg_pool": (Type.F32, Type.B1),
    "global_sum": (Type.I16,),
    "pointwise": (Type.F32, Type.I16, Type.B1),
    "channels": (Type.F32, Type.I16, Type.B1),
    "resize": (Type.F32, Type.B1),
    "pixel_shuffle": (Type.F32, Type.B1),
    "adaptive_pool": (Type.F32,),
}
_KEEP_TYPE = ("max_pool", "avg_pool", "channels", "resize", "pixel_shuffle")
_WRITTEN = {
    "threshold": (Type.B1,),
    "sign": (Type.B1,),
    "quant8": (Type.U8,),
    "quant16": (Type.I16,),
}
_FROM_INT = ("threshold", "quant4_shift", "quant4_ladder", "shift_sum", "shift_prelu", "bias")
_TO_INT4 = ("quant4_shift", "quant4_ladder")
_WINDOW = ("kernel", "stride", "pad", "dilation")
# steps whose arrays are int32, whatever their names
INTEGER_STEPS = ("shift_sum", "shift_prelu", "bias")
MAX_DIGITS = 4  # signed powers of two that stand for a factor
MAX_ADDED = 65_535  # of the constants of a `shift_prelu`
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
        if value not in written or value.type not in (Type.F32, Type.I32):
            raise CompileError(f"{value.name}: an output must be real-valued or a 32-bit integer")
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
    _check_types(node, node.params)
    if node.op in _CHECKS:
        _CHECKS[node.op](node)
    channels, size = output_channels(node), output_size(node)
    if not spec.epilogue and node.op not in ("channels", "resize"):
        _require(len(node.inputs) == 1, node, f"{node.op} reads one map")
    for value in node.outputs:
        _require(value.shape == (channels, *size), node, f"{value.name} has shape {value.shape}")
    if spec.epilogue:
        _require(bool(node.outputs), node, "computes what nobody reads")
        _check_epilogue(node, channels, size)
    else:
        kept = source.type if node.op in _KEEP_TYPE else Type.F32
        if node.op == "global_sum":
            kept = Type.I32
        _require(not node.epilogue and len(node.outputs) == 1, node, f"{node.op} has no epilogue")
        _require(node.outputs[0].type == kept, node, f"{node.op} cannot write that type")


def _check_types(node: Node, params: dict[str, np.ndarray]) -> None:
    for name, array in params.items():
        real = name not in INTEGERS and array.dtype in (np.float32, np.float64)
        _require(real or array.dtype == INTEGERS.get(name), node, f"{name} is {array.dtype}")


def _check_digits(node: Node, step: Step) -> None:
    """The shifts and signs of a step that adds up shifted numbers."""
    digits = step.attrs["digits"]
    _require(1 <= digits <= MAX_DIGITS, node, f"{step.kind} has {digits} digits")
    shifts, signs = step.params["shifts"], step.params["signs"]
    fits = shifts.min() >= MIN_SHIFT and shifts.max() <= MAX_SHIFT
    _require(bool(fits), node, f"{step.kind} shifts by more than {MIN_SHIFT}..{MAX_SHIFT}")
    _require(bool((np.abs(signs) <= 1).all()), node, f"{step.kind} has a sign that is none")
    for name in {"shift_in", "shift_out"} & set(step.params):
        fits = np.abs(step.params[name]).max() <= MAX_ADDED
        _require(bool(fits), node, f"{step.kind}.{name} is more than {MAX_ADDED}")


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
    elif node.inputs[0].type != Type.U8:
        _require(a["zero_point"] == 0, node, "zero_point is for 8-bit maps")
    else:
        _require(0 <= a["zero_point"] <= 255, node, "zero_point must be 0..255")
        low, high = reachable(node)
        _require(
            -low.min() <= INT32_MAX >= high.max(), node, "its sums leave 32 bits: use fewer inputs"
        )


def _check_pool(node: Node) -> None:
    a = node.attrs
    fits = all(2 * a[f"pad_{axis}"] <= a[f"kernel_{axis}"] for axis in "hw")
    _require(fits, node, "its padding is more than half of its kernel")
    for name in {"ceil_mode", "count_include_pad"} & set(a):
        _require(a[name] in (0, 1), node, f"{name} must be 0 or 1")
    flip = node.params.get("flip")
    fits = flip is None or flip.shape == (node.inputs[0].channels,)
    _require(fits, node, "flip has another length")
    _require(flip is None or node.inputs[0].type == Type.B1, node, "flips real numbers")


def _check_avg_pool(node: Node) -> None:
    _check_pool(node)
    a = node.attrs
    if node.inputs[0].type == Type.I16:
        taps = a["kernel_h"] * a["kernel_w"]
        fits = taps & (taps - 1) == 0 and not (a["pad_h"] or a["pad_w"] or a["ceil_mode"])
        _require(fits, node, "averages integers over padding, or a number that is no power of two")


def _check_channels(node: Node) -> None:
    index = node.params["index"]
    total = sum(value.channels for value in node.inputs)
    _require(index.ndim == 1 and index.size > 0, node, "index is empty")
    fits = index.min() >= 0 and index.max() < total
    _require(bool(fits), node, f"index leaves its {total} channels")
    kinds = {value.type for value in node.inputs}
    _require(len(kinds) == 1, node, "joins bits and real numbers")


def _check_resize(node: Node) -> None:
    a = node.attrs
    _require(a["mode"] in (0, 1), node, "mode must be 0 or 1")
    _require(a["align_corners"] in (0, a["mode"]), node, "align_corners must be 0, or mode 1")
    _require(len(node.inputs) <= 2, node, "resize reads one map, and the size of another")
    _require(node.inputs[0].type == Type.F32 or a["mode"] == 0, node, "bits have no bilinear mode")
    sizes = [a[name] for name in ("scale_h", "scale_w", "out_h", "out_w")]
    _require(min(sizes) >= 0, node, "a size is negative")
    pairs = [(bool(h), bool(w)) for h, w in (sizes[:2], sizes[2:])]
    _require(all(h == w for h, w in pairs), node, "has a size for rows or columns alone")
    ways = (len(node.inputs) > 1) + sum(h for h, _ in pairs)
    message = "its size must be given in one way: a second map, a scale, or out_h and out_w"
    _require(ways == 1, node, message)


def _check_pixel_shuffle(node: Node) -> None:
    factor, channels = node.attrs["factor"], node.inputs[0].channels
    fits = 1 <= factor <= channels and channels % factor**2 == 0
    _require(fits, node, f"its factor {factor} does not divide {channels} channels twice")


def _check_adaptive_pool(node: Node) -> None:
    a = node.attrs
    _require(min(a["out_h"], a["out_w"]) >= 1, node, "gives an empty map")
    _require(a["take_max"] in (0, 1), node, "take_max must be 0 or 1")


_CHECKS = {
    "conv_b1": _check_conv,
    "conv_q8": _check_conv,
    "conv_shift": _check_conv,
    "max_pool": _check_pool,
    "avg_pool": _check_avg_pool,
    "channels": _check_channels,
    "resize": _check_resize,
    "pixel_shuffle": _check_pixel_shuffle,
    "adaptive_pool": _check_adaptive_pool,
}


def _check_epilogue(node: Node, channels: int, size: tuple[int, int]) -> None:
    steps = len(node.epilogue)
    _require(steps <= MAX_STEPS, node, f"has {steps} steps, more than {MAX_STEPS}")
    # what the running value is: a real number, or an integer that may be stored as ...
    stored = {Type.I32}
    if node.op == "pointwise":
        stored = {Type.I16 if node.inputs[0].type == Type.I16 else Type.F32}
    integer = stored != {Type.F32}
    read = [step.value for step in node.epilogue if step.kind in READING]
    _require(node.inputs[1:] == read, node, "its further inputs are not those of its steps")
    written = [s.value for s in node.epilogue if s.value is not None and s.kind not in READING]
    _require(node.outputs == written, node, "its outputs are not those of its steps")
    for step in node.epilogue:
        spec = STEPS.get(step.kind)
        _require(spec is not None, node, f"{step.kind} is not a step of the engine")
        complete = set(step.attrs) == set(spec.attrs) and set(step.params) == set(spec.params)
        _require(complete, node, f"{step.kind} lacks attributes or tensors")
        if step.kind in INTEGER_STEPS:
            kinds = {array.dtype for array in step.params.values()}
            _require(kinds == {np.dtype(np.int32)}, node, f"{step.kind} of {kinds}")
        else:
            _check_types(node, step.params)
        for name, array in step.params.items():
            rows = (channels, 15) if name == "cuts" else (channels,)
            if name in ("shifts", "signs"):
                rows = (channels, step.attrs["digits"])
            _require(array.shape == rows, node, f"{step.kind}.{name} has shape {array.shape}")
        if step.value is not None and step.kind not in READING:
            fits = step.value.shape == (channels, *size)
            _require(fits, node, f"{step.kind} of a value of shape {step.value.shape}")
        if step.kind in _FROM_INT:
            _require(integer, node, f"{step.kind} of a real number")
        elif step.kind not in ("affine", "add", "store"):
            _require(not integer, node, f"{step.kind} of an integer")
        if step.kind in ("shift_sum", "shift_prelu"):
            _check_digits(node, step)
        if step.kind in READING:
            _check_reading(node, step, integer, (channels, *size))
        elif step.kind == "clip":
            a = step.attrs
            _require(a["minimum"] <= a["maximum"], node, "clips to an empty range")
        elif step.kind == "store":
            _require(step.value.type in stored, node, "stores another type")
        elif step.kind in _WRITTEN:
            _require(
                step.value.type in _WRITTEN[step.kind], node, f"{step.kind} writes another type"
            )
            if step.kind == "quant8":
                levels, zero_point = step.attrs["levels"], step.attrs["zero_point"]
                _require(1 <= levels <= 255, node, "levels must be 1..255")
                _require(0 <= zero_point <= levels, node, f"zero_point must be 0..{levels}")
        integer = integer and step.kind != "affine"
        stored = _stored_types(step, integer, stored)


def _stored_types(step: Step, integer: bool, before: set[Type]) -> set[Type]:
    """As what the running value may be stored behind a step."""
    if not integer:
        return {Type.F32}
    if step.kind in _TO_INT4:
        return {Type.I4}
    if step.kind in ("shift_sum", "shift_prelu"):
        return {Type.I16, Type.I32}
    if step.kind == "bias":
        return before | {Type.I32} if Type.I4 not in before else {Type.I32}
    if step.kind == "add":
        return {Type.I16, Type.I32} if step.value.type == Type.I16 else {Type.I32}
    return before


def _check_reading(node: Node, step: Step, integer: bool, shape: tuple[int, int, int]) -> None:
    value = step.value
    kinds = (Type.I4, Type.I16) if integer else (Type.F32,)
    _require(value.type in kinds, node, f"{step.kind} of different types")
    _require(step.kind == "add" or not integer, node, "multiplies integers")
    if integer:
        _require(value.shape == shape, node, f"{step.kind} of a value of shape {value.shape}")
    channels = value.channels in (1, shape[0])
    _require(channels, node, f"{step.kind} of {value.channels} channels and {shape[0]}")
    check_broadcast(node, step.kind, value.shape[1:], shape[1:])
