"""ONNX files as captured graphs, so that the code that counts our networks counts any rival's.

Real-valued files and 8-bit ones in the QDQ format (ONNX Runtime's `quantize_static`,
`signbit.rivals.engines.quantize`) are read: a convolution whose input and weights are quantised is
an 8-bit one, a map that is quantised where it is made is an 8-bit map, and pairs of QuantizeLinear
and DequantizeLinear are no layers. Constants and the arithmetic of shapes are computed here.
Weights of -s and +s behind a Sign are binary.

Scale of weights and quantisation of the result are one multiplication in integer arithmetic: the
strict count (`signbit.hardware.multiplications`) has it as `weight_scales` and none for the input.

Needs the package onnx (`pip install "signbit[export]"`) once a file is read; imports NumPy only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signbit.compiler.ir import Graph, Node, Type, Value
from signbit.errors import SignbitError
from signbit.hardware.captured import workload_of_captured
from signbit.hardware.workload import Workload

_FOLDING_ROUNDS = 12  # shapes that are computed from shapes, one behind the other
_INTEGERS = {np.dtype(np.int8): Type.I8, np.dtype(np.uint8): Type.U8}
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def workload_of_onnx(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    accuracy: float | None = None,
) -> Workload:
    """The workload of an ONNX file, for one image: as `read_onnx` and `workload_of_captured`.

    Args:
        path: the file.
        name: of the network; by default the file's name.
        size: height and width of an image, where the file leaves them open.
        accuracy: of the network in percent, if it is known.

    Raises:
        SignbitError: see `read_onnx`.
        OSError: the file cannot be read.
    """
    graph = read_onnx(path, size=size)
    return workload_of_captured(graph, name or Path(path).stem, accuracy=accuracy)


def read_onnx(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> Graph:
    """An ONNX file as a captured graph.

    Args:
        path: the file; its first input is the image, [N, C, H, W].
        size: height and width of an image, where the file leaves them open.

    Raises:
        SignbitError: onnx is not installed; it is no such file; the image's size is open and none
            was given, or another one was; or there are operators that cannot be counted, all of
            them named with their nodes.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise SignbitError(
            f'{path}: reading ONNX files needs onnx: pip install "signbit[export]"'
        ) from error
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise SignbitError(f"{path} is no ONNX file: {error}") from error
    if not model.graph.node:
        raise SignbitError(f"{path} is no ONNX file, or one without any operator")
    _set_input(model, path, size)
    return _Reader(model, path).graph()


def _set_input(model: Any, path: Path, size: tuple[int, int] | None) -> None:
    """Give the image its size, and forget the sizes that followed from another one."""
    image = _image(model, path)
    dims = image.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise SignbitError(
            f"{path}: input {image.name} has {len(dims)} dimensions, expected an image [N, C, H, W]"
        )
    if dims[0].dim_value > 1:
        raise SignbitError(
            f"{path}: input {image.name} takes {dims[0].dim_value} images at once: export it for "
            "one, or for any number"
        )
    dims[0].dim_value = 1
    for axis, letter in ((2, "height"), (3, "width")):
        fixed = dims[axis].dim_value
        wanted = size[axis - 2] if size else fixed
        if not wanted:
            raise SignbitError(
                f"{path}: the {letter} of input {image.name} is open "
                f"({dims[axis].dim_param or 'unnamed'}): say for images of which size to count, as "
                "in --size 224x224"
            )
        if fixed and wanted != fixed:
            raise SignbitError(
                f"{path}: input {image.name} has a {letter} of {fixed}, not {wanted}: export the "
                "network for that size, or for any"
            )
        dims[axis].dim_value = wanted
    if not dims[1].dim_value:
        raise SignbitError(f"{path}: the channels of input {image.name} are open")
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def _image(model: Any, path: Path) -> Any:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise SignbitError(f"{path}: has {len(inputs)} inputs ({names}), expected one, the image")
    return inputs[0]


# --- shapes and constants ---


@dataclass
class _Tensors:
    """What is known of a file's tensors before its layers are read.

    Attributes:
        shapes: of all, batch included; open lengths are 0.
        constants: those that do not depend on the image's pixels.
    """

    shapes: dict[str, tuple[int, ...]]
    constants: dict[str, np.ndarray]


def _resolve(model: Any, path: Path) -> _Tensors:
    """Infer shapes and compute constants, in turn, as shapes may be computed from shapes."""
    from onnx import numpy_helper

    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    known = set(constants)
    shapes = _infer(model, path)
    for _ in range(_FOLDING_ROUNDS):
        _fold(model, shapes, constants)
        new = set(constants) - known
        if not new:
            break
        # shape inference reads what operators take as shapes from initializers
        for name in sorted(new):
            if constants[name].dtype == np.int64:
                model.graph.initializer.append(numpy_helper.from_array(constants[name], name))
        known |= new
        shapes |= _infer(model, path)
    return _Tensors(shapes, constants)


def _infer(model: Any, path: Path) -> dict[str, tuple[int, ...]]:
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise SignbitError(f"{path}: its shapes do not fit each other: {error}") from error
    found = {}
    for each in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        if each.type.tensor_type.HasField("shape"):
            dims = each.type.tensor_type.shape.dim
            found[each.name] = tuple(dim.dim_value for dim in dims)
    return found


def _fold(model: Any, shapes: dict[str, tuple[int, ...]], constants: dict[str, np.ndarray]) -> None:
    """Compute what follows from constants and from sizes of maps alone."""
    from onnx.reference import ReferenceEvaluator

    for node in model.graph.node:
        if node.output[0] in constants or node.op_type in (_QUANTIZE, _DEQUANTIZE):
            continue
        if node.op_type == "Shape":
            shape = shapes.get(node.input[0])
            if shape is not None and all(shape):
                bounds = slice(_attribute(node, "start", 0), _attribute(node, "end", None))
                constants[node.output[0]] = np.array(shape[bounds], np.int64)
        elif all(name in constants for name in node.input if name):
            given = {name: constants[name] for name in node.input if name}
            found = ReferenceEvaluator(_single(model, node)).run(None, given)
            constants.update(zip(node.output, map(np.asarray, found), strict=True))


def _single(model: Any, node: Any) -> Any:
    """A model of one node, whose inputs are all constants."""
    from onnx import helper

    inputs = [helper.make_empty_tensor_value_info(name) for name in node.input if name]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    return helper.make_model(graph, opset_imports=list(model.opset_import))


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return default


# --- layers ---


@dataclass(frozen=True)
class _Quantization:
    """How the numbers of a map of 8 bits are to be read: (q - zero_point) * scale."""

    scale: np.ndarray
    zero_point: int

    def equals(self, other: _Quantization | None) -> bool:
        """Whether both read numbers alike."""
        if other is None or self.zero_point != other.zero_point:
            return False
        return np.array_equal(self.scale, other.scale)


class _UncountableError(Exception):
    """Why one node cannot be counted."""


class _Reader:
    """Turns the nodes of a file into those of a captured graph, in order."""

    def __init__(self, model: Any, path: Path):
        self.model, self.path = model, path
        tensors = _resolve(model, path)
        self.shapes, self.constants = tensors.shapes, tensors.constants
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.makers: dict[Value, Node] = {}
        self.quantizations: dict[Value, _Quantization] = {}
        self.weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # integers and their scales
        self.read_by: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.read_by.setdefault(name, []).append(node)

    def graph(self) -> Graph:
        image = _image(self.model, self.path)
        source = Value(image.name, Type.F32, self._shape(image.name))
        self.values[image.name] = source
        refused = []
        for node in self.model.graph.node:
            if all(name in self.constants for name in node.output):
                continue
            try:
                self._take(node)
            except _UncountableError as reason:
                refused.append(f"{_path(node)} ({node.op_type}): {reason}")
                # what follows is read as if it were there, to name all at once
                for name in node.output:
                    shape = self.shapes.get(name, ())
                    self.values[name] = Value(name, Type.F32, _chw(shape))
        if refused:
            raise SignbitError(
                "\n  ".join([f"{self.path} has operators that cannot be counted:", *refused])
            )
        outputs = [self.values[each.name] for each in self.model.graph.output]
        flat = [len(self.shapes.get(each.name, ())) == 2 for each in self.model.graph.output]
        return Graph(self.nodes, source, outputs, flat)

    def _take(self, node: Any) -> None:
        if node.op_type == _QUANTIZE:
            self._quantize(node)
        elif node.op_type == _DEQUANTIZE:
            self._dequantize(node)
        elif node.op_type in _READERS:
            _READERS[node.op_type](self, node)
        else:
            raise _UncountableError("no such operator is known here")

    # --- what readers of operators use ---

    def input(self, node: Any, at: int) -> Value:
        """A map that a node reads."""
        name = node.input[at]
        if name not in self.values:
            raise _UncountableError(f"its input {name} is a constant, expected a map")
        return self.values[name]

    def constant(self, node: Any, at: int) -> np.ndarray | None:
        """A constant that a node reads, in real numbers; None if it has no such input."""
        if at >= len(node.input) or not node.input[at]:
            return None
        name = node.input[at]
        if name in self.weights:
            integers, scale = self.weights[name]
            return integers * _along_first(scale, integers.ndim)
        if name not in self.constants:
            raise _UncountableError(
                f"its input {name} is computed from the image, expected a constant"
            )
        return self.constants[name]

    def is_map(self, name: str) -> bool:
        return name in self.values

    def add(
        self,
        node: Any,
        op: str,
        inputs: Sequence[Value],
        attrs: dict[str, Any] | None = None,
        params: dict[str, np.ndarray] | None = None,
        output: int = 0,
    ) -> Node:
        """A layer that makes one of a node's outputs."""
        name = node.output[output]
        value = Value(name, Type.F32, self._shape(name))
        return self._append(Node(op, _path(node), list(inputs), [value], attrs or {}, params or {}))

    def between(self, node: Any, op: str, source: Value, suffix: str, **fields: Any) -> Value:
        """A layer on the way to a node's output; the map that it makes."""
        value = Value(f"{node.output[0]}:{suffix}", Type.F32, source.shape)
        made = Node(op, _path(node), [source], [value], **fields)
        return self._append(made, known=False).outputs[0]

    def keep_type(self, made: Node) -> None:
        """The result has the numbers of the inputs, and their format where all are of one."""
        first, *others = (self.quantizations.get(value) for value in made.inputs)
        alike = first is not None and all(first.equals(each) for each in others)
        if alike or {value.type for value in made.inputs} == {Type.B1}:
            made.outputs[0].type = made.inputs[0].type
        if alike:
            self.quantizations[made.outputs[0]] = first

    def _append(self, made: Node, known: bool = True) -> Node:
        self.nodes.append(made)
        value = made.outputs[0]
        self.makers[value] = made
        if known:
            self.values[value.name] = value
        return made

    def _shape(self, name: str) -> tuple[int, int, int]:
        shape = self.shapes.get(name)
        if not shape or not all(shape):
            raise _UncountableError(
                f"the shape of {name} cannot be computed ({shape or 'unknown'}): give the file "
                "fixed shapes"
            )
        return _chw(shape)

    # --- quantisation ---

    def _quantize(self, node: Any) -> None:
        source, name = self.input(node, 0), node.output[0]
        how = self._quantization(node)
        if how.equals(self.quantizations.get(source)):
            self.values[name] = source
            return
        maker = self.makers.get(source)
        alone = len(self.read_by[node.input[0]]) == 1 and not self._is_output(node.input[0])
        if maker is None or source in self.quantizations or not alone:
            maker = self.add(node, "identity", [source])
            source = maker.outputs[0]
        source.type = self._integer_type(node)
        maker.attrs["quantized"] = 1
        self.quantizations[source] = how
        self.values[name] = source

    def _dequantize(self, node: Any) -> None:
        name = node.input[0]
        if name in self.constants:
            scale = np.asarray(self.constants[node.input[1]], np.float64).reshape(-1)
            integers = self.constants[name]
            if _attribute(node, "axis", 1) not in (0, -integers.ndim) and scale.size > 1:
                scale = np.array([scale.max()])  # counts need to know that there is one
            self.weights[node.output[0]] = integers, scale
            return
        self.values[node.output[0]] = self.input(node, 0)

    def _quantization(self, node: Any) -> _Quantization:
        point = self.constant(node, 2)
        scale = np.asarray(self.constant(node, 1), np.float64).reshape(-1)
        return _Quantization(scale, 0 if point is None else int(point.reshape(-1)[0]))

    def _integer_type(self, node: Any) -> Type:
        point = self.constant(node, 2)
        kind = np.dtype(np.uint8) if point is None else point.dtype
        if kind not in _INTEGERS:
            raise _UncountableError(f"it quantises to {kind}, only 8 bits are known here")
        return _INTEGERS[kind]

    def _is_output(self, name: str) -> bool:
        return any(each.name == name for each in self.model.graph.output)


def _path(node: Any) -> str:
    """What a node is called, for people: PyTorch's exporter writes /features/conv/Conv."""
    return (node.name or node.output[0]).strip("/")


def _chw(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of a tensor [N, ...]; vectors have one pixel, further dimensions are channels."""
    dims = tuple(shape[1:])
    if len(dims) < 3:
        dims = (*dims, 1, 1, 1)[:3]
    return math.prod(dims[:-2]), dims[-2], dims[-1]


def _along_first(array: np.ndarray, dimensions: int) -> np.ndarray:
    return array.reshape(-1, *[1] * (dimensions - 1)) if array.size > 1 else array


# --- operators ---


def _window(node: Any, kernel: Sequence[int]) -> dict[str, int]:
    """A window's attributes; of two paddings the first."""
    stride = _attribute(node, "strides", None) or (1, 1)
    dilation = _attribute(node, "dilations", None) or (1, 1)
    pads = _attribute(node, "pads", None) or (0, 0)
    if len(kernel) != 2:
        raise _UncountableError(f"its window has {len(kernel)} dimensions, expected 2")
    pairs = {"kernel": kernel, "stride": stride, "pad": pads, "dilation": dilation}
    return {
        f"{name}_{axis}": int(pair[i])
        for name, pair in pairs.items()
        for i, axis in enumerate("hw")
    }


def _conv(reader: _Reader, node: Any) -> None:
    weight = reader.constant(node, 1)
    groups = _attribute(node, "group", 1)
    attrs = _window(node, weight.shape[2:]) | {
        "in_channels": weight.shape[1] * groups, "out_channels": weight.shape[0], "groups": groups,
    }  # fmt: skip
    _product(reader, node, "conv2d", weight, attrs, reader.constant(node, 2))


def _gemm(reader: _Reader, node: Any) -> None:
    weight = reader.constant(node, 1)
    if _attribute(node, "transA", 0):
        raise _UncountableError("its input is transposed")
    if not _attribute(node, "transB", 0):
        weight = weight.T
    _linear(reader, node, weight, reader.constant(node, 2))


def _matmul(reader: _Reader, node: Any) -> None:
    if reader.is_map(node.input[1]):
        raise _UncountableError("it multiplies two maps as matrices, expected constant weights")
    weight = reader.constant(node, 1)
    if weight.ndim != 2 or len(reader.shapes[node.output[0]]) != 2:
        raise _UncountableError("expected the product of a vector and a matrix")
    _linear(reader, node, weight.T, None)


def _linear(reader: _Reader, node: Any, weight: np.ndarray, bias: np.ndarray | None) -> None:
    attrs = {"in_channels": weight.shape[1], "out_channels": weight.shape[0]}
    _product(reader, node, "linear", weight, attrs, bias)


def _product(
    reader: _Reader,
    node: Any,
    op: str,
    weight: np.ndarray,
    attrs: dict[str, Any],
    bias: np.ndarray | None,
) -> None:
    """A convolution or linear layer: binary, of 8 bits, or real, as its operands are."""
    source = reader.input(node, 0)
    params = {} if bias is None else {"bias": bias.reshape(-1)}
    magnitude = np.abs(weight).reshape(len(weight), -1)
    quantized = reader.weights.get(node.input[1])
    if source.type == Type.B1 and (magnitude == magnitude[:, :1]).all() and magnitude.all():
        params |= {"weight": np.sign(weight).astype(np.int8), "scale": magnitude[:, 0]}
        reader.add(node, f"binary_{op}", [source], attrs | {"pad_value": 0}, params)
    elif quantized is not None and source in reader.quantizations:
        how = reader.quantizations[source]
        scale = np.broadcast_to(quantized[1] * how.scale.max(), len(weight))
        params |= {"weight": weight, "scale": scale}
        attrs = attrs | {"bits": 8, "zero_point": how.zero_point}
        reader.add(node, f"quant_{op}", [source], attrs, params)
    else:
        reader.add(node, op, [source], attrs, params | {"weight": weight})


def _batch_norm(reader: _Reader, node: Any) -> None:
    names = ("gain", "bias", "mean", "var")
    params = {name: reader.constant(node, 1 + i) for i, name in enumerate(names)}
    attrs = {"eps": _attribute(node, "epsilon", 1e-5)}
    reader.add(node, "batch_norm", [reader.input(node, 0)], attrs, params)


def _same(op: str) -> Callable[[_Reader, Any], None]:
    """An operator of one map and no constants."""

    def read(reader: _Reader, node: Any) -> None:
        reader.add(node, op, [reader.input(node, 0)])

    return read


def _sign(reader: _Reader, node: Any) -> None:
    reader.add(node, "sign", [reader.input(node, 0)]).outputs[0].type = Type.B1


def _leaky_relu(reader: _Reader, node: Any) -> None:
    source = reader.input(node, 0)
    slope = np.full(source.channels, _attribute(node, "alpha", 0.01))
    reader.add(node, "prelu", [source], {}, {"slope": slope})


def _prelu(reader: _Reader, node: Any) -> None:
    source = reader.input(node, 0)
    slope = _per_channel(reader.constant(node, 1), source)
    reader.add(node, "prelu", [source], {}, {"slope": slope})


def _per_channel(constant: np.ndarray, source: Value) -> np.ndarray:
    if constant.size not in (1, source.channels):
        raise _UncountableError(
            f"a constant of shape {list(constant.shape)} meets a map of {source.channels} "
            "channels, expected one number, or one a channel"
        )
    return np.broadcast_to(constant.reshape(-1), source.channels).astype(np.float64)


def _clip(reader: _Reader, node: Any) -> None:
    bounds = []
    for at, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        given = reader.constant(node, at)
        bounds.append(_attribute(node, name, default) if given is None else float(given))
    attrs = {"minimum": bounds[0], "maximum": bounds[1]}
    reader.add(node, "clip", [reader.input(node, 0)], attrs)


def _hard_sigmoid_of(reader: _Reader, node: Any, scale: float, bias: float) -> Value:
    source = reader.input(node, 0)
    params = {"scale": np.full(source.channels, scale), "bias": np.full(source.channels, bias)}
    ramp = reader.between(node, "affine", source, "ramp", params=params)
    bounds = {"minimum": 0.0, "maximum": 1.0}
    return reader.between(node, "clip", ramp, "clip", attrs=bounds)


def _hard_sigmoid(reader: _Reader, node: Any) -> None:
    alpha, beta = _attribute(node, "alpha", 0.2), _attribute(node, "beta", 0.5)
    gate = _hard_sigmoid_of(reader, node, alpha, beta)
    reader.values[node.output[0]] = gate


def _hard_swish(reader: _Reader, node: Any) -> None:
    gate = _hard_sigmoid_of(reader, node, 1 / 6, 0.5)
    reader.add(node, "mul", [gate, reader.input(node, 0)])


def _sum(reader: _Reader, node: Any) -> None:
    """Add, Sub, Sum: of maps, or of a map and a constant."""
    maps = [reader.values[name] for name in node.input if reader.is_map(name)]
    others = [at for at, name in enumerate(node.input) if not reader.is_map(name)]
    total = maps[0]
    if others:
        if len(node.input) != 2:
            raise _UncountableError("it adds several constants")
        bias = _per_channel(reader.constant(node, others[0]), total)
        params = {"scale": np.ones(total.channels), "bias": bias}
        reader.add(node, "affine", [total], {}, params)
        return
    for i, value in enumerate(maps[1:-1]):
        part = Value(f"{node.output[0]}:{i}", Type.F32, total.shape)
        reader._append(Node("add", _path(node), [total, value], [part]), known=False)
        total = part
    reader.add(node, "add", [total, maps[-1]])


def _mul(reader: _Reader, node: Any) -> None:
    """Mul and Div: of two maps, or of a map and a constant."""
    maps = [reader.values[name] for name in node.input if reader.is_map(name)]
    divides = node.op_type == "Div"
    if len(maps) == 2:
        if divides:
            raise _UncountableError("it divides two maps")
        reader.add(node, "mul", maps)
        return
    at = 1 if reader.is_map(node.input[0]) else 0
    if divides and at == 0:
        raise _UncountableError("it divides by a map")
    scale = _per_channel(reader.constant(node, at), maps[0])
    params = {"scale": 1 / scale if divides else scale, "bias": np.zeros(len(scale))}
    reader.add(node, "affine", maps, {}, params)


def _max_pool(reader: _Reader, node: Any) -> None:
    attrs = _window(node, _attribute(node, "kernel_shape", ()))
    attrs["ceil_mode"] = _attribute(node, "ceil_mode", 0)
    reader.keep_type(reader.add(node, "max_pool", [reader.input(node, 0)], attrs))


def _avg_pool(reader: _Reader, node: Any) -> None:
    attrs = _window(node, _attribute(node, "kernel_shape", ()))
    attrs["ceil_mode"] = _attribute(node, "ceil_mode", 0)
    attrs["count_include_pad"] = _attribute(node, "count_include_pad", 0)
    reader.add(node, "avg_pool", [reader.input(node, 0)], attrs)


def _global_max(reader: _Reader, node: Any) -> None:
    attrs = {"out_h": 1, "out_w": 1, "take_max": 1}
    reader.keep_type(reader.add(node, "adaptive_pool", [reader.input(node, 0)], attrs))


def _mean(reader: _Reader, node: Any) -> None:
    axes = _attribute(node, "axes", None)
    if axes is None and (given := reader.constant(node, 1)) is not None:
        axes = given.tolist()
    rank = len(reader.shapes.get(node.input[0], ()))
    if sorted(axis % rank for axis in axes or ()) != [2, 3] or rank != 4:
        raise _UncountableError(f"a mean over axes {axes}, expected those of height and width")
    reader.add(node, "global_avg_pool", [reader.input(node, 0)])


def _moving(reader: _Reader, node: Any) -> None:
    """Numbers that move as they are; each output of a Split is one such layer."""
    maps = [reader.values[name] for name in node.input if reader.is_map(name)]
    for at in range(len(node.output)):
        reader.keep_type(reader.add(node, "channels", maps, output=at))


def _view(reader: _Reader, node: Any) -> None:
    reader.keep_type(reader.add(node, "flatten", [reader.input(node, 0)]))


def _resize(reader: _Reader, node: Any) -> None:
    mode = _attribute(node, "mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise _UncountableError(f"mode {mode}, expected nearest or linear")
    made = reader.add(node, "resize", [reader.input(node, 0)], {"mode": int(mode == "linear")})
    if mode == "nearest":
        reader.keep_type(made)


def _depth_to_space(reader: _Reader, node: Any) -> None:
    attrs = {"factor": _attribute(node, "blocksize", 1)}
    reader.keep_type(reader.add(node, "pixel_shuffle", [reader.input(node, 0)], attrs))


_READERS: dict[str, Callable[[_Reader, Any], None]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "Relu": _same("relu"),
    "Sigmoid": _same("sigmoid"),
    "Tanh": _same("sigmoid"),  # a table either
    "GlobalAveragePool": _same("global_avg_pool"),
    "Sign": _sign,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    **dict.fromkeys(("Add", "Sub", "Sum"), _sum),
    **dict.fromkeys(("Mul", "Div"), _mul),
    "MaxPool": _max_pool,
    "AveragePool": _avg_pool,
    "GlobalMaxPool": _global_max,
    "ReduceMean": _mean,
    **dict.fromkeys(
        ("Concat", "Slice", "Split", "Gather", "Transpose", "Tile", "Expand", "SpaceToDepth"),
        _moving,
    ),
    **dict.fromkeys(
        ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Pad", "Cast"),
        _view,
    ),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "DepthToSpace": _depth_to_space,
}
