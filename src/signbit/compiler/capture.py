"""Capture: a PyTorch model becomes a graph with one node a layer.

The model is traced with `torch.fx`, the project's layers and PyTorch's own being leaves, and run
once on the example for its shapes. Everything that the compiler refuses is found in that one walk
and reported together; nothing is left to run in real numbers behind the user's back.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from signbit.compiler.ir import Graph, Node, Type, Value
from signbit.compiler.layers import Layer, is_leaf, known_layers, read_layer
from signbit.errors import CompileError


@dataclass(frozen=True)
class Problem:
    """Why the compiler refuses a layer."""

    path: str
    layer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path or 'the model'} ({self.layer}): {self.reason}"


@dataclass
class Capture:
    """A captured model.

    Attributes:
        graph: one node a layer.
        problems: all that the compiler refuses; empty if the graph can be lowered.
        module: the traced model, or None if it could not be traced.
        values: which graph value each traced node computes.
        model: the model itself.
    """

    graph: Graph
    problems: list[Problem] = field(default_factory=list)
    module: fx.GraphModule | None = None
    values: dict[str, Value] = field(default_factory=dict)
    model: nn.Module | None = None


def capture(model: nn.Module, example_input: Tensor) -> Capture:
    """Capture `model`, evaluated on `example_input` [N, C, H, W].

    Raises CompileError naming every layer that the compiler refuses, or the parameter or input
    that is not finite.
    """
    check_finite(model, example_input)
    captured = capture_leniently(model, example_input)
    if captured.problems:
        count = len(captured.problems)
        head = (
            "the model cannot be compiled" if count == 1 else f"{count} layers cannot be compiled"
        )
        raise CompileError("\n  ".join([head + ":", *map(str, captured.problems)]))
    return captured


def capture_leniently(model: nn.Module, example_input: Tensor) -> Capture:
    """Capture as much of `model` as can be, with a list of all that the compiler refuses.

    Raises CompileError only for an example that is not [N, C, H, W].
    """
    if not isinstance(example_input, Tensor) or example_input.dim() != 4:
        shape = getattr(example_input, "shape", type(example_input).__name__)
        raise CompileError(f"example_input must be a tensor [N, C, H, W], got {shape}")
    with evaluating(model):
        tracer = _Tracer()
        try:
            traced = fx.GraphModule(model, tracer.trace(model))
        except Exception as error:  # whatever a model's own forward raises on symbolic values
            return _capture_by_hooks(model, example_input, tracer.where(model), error)
        return _Builder(traced, model, example_input).capture()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode is restored."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def check_finite(model: nn.Module, example_input: Tensor) -> None:
    """Raise CompileError, naming what is at fault, for values that are not finite."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CompileError(f"{name} holds NaN or infinity: train again, or load good weights")
    if isinstance(example_input, Tensor) and not torch.isfinite(example_input).all():
        raise CompileError("example_input holds NaN or infinity")


def on_device_of(model: nn.Module, x: Tensor) -> Tensor:
    """`x` where the model's parameters are."""
    parameter = next(model.parameters(), None)
    return x if parameter is None else x.to(parameter.device)


class _Proxy(fx.Proxy):
    """A symbolic value on which `x += y` stays what it is, instead of becoming `x = x + y`."""

    def __iadd__(self, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return is_leaf(module) or super().is_leaf_module(module, path)

    def where(self, model: nn.Module) -> tuple[str, nn.Module]:
        """The module in whose forward tracing stopped."""
        path = next(reversed(self.module_stack), "")
        return path, model.get_submodule(path)


class _Recorder(fx.Interpreter):
    """Runs the traced model and keeps every tensor that it computes, or only their shapes.

    Attributes:
        tensors: what each node computes, by its name; empty unless asked for.
        shapes: the tensors' shapes.
        shared: for each node, all those whose tensors lie in the same memory, itself among them.
        worked_in_place: for each node that changes a tensor that it is given, those tensors' nodes.
    """

    def __init__(self, module: fx.GraphModule, keep: bool = False):
        super().__init__(module)
        self.keep = keep
        self.tensors: dict[str, Tensor] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.shared: dict[fx.Node, list[fx.Node]] = {}
        self.worked_in_place: dict[fx.Node, list[fx.Node]] = {}

    def run_on(self, x: Tensor) -> None:
        """Run the model on a copy of `x`: its first layer may work in place."""
        # Tensors of inference mode do not count how often they are written.
        with torch.inference_mode(False), torch.no_grad():
            self.run(x.clone())

    def run_node(self, n: fx.Node) -> object:
        given = {source: self.env[source] for source in n.all_input_nodes}
        given = {source: x for source, x in given.items() if isinstance(x, Tensor)}
        versions = {source: x._version for source, x in given.items()}
        result = super().run_node(n)
        changed = [source for source, x in given.items() if x._version != versions[source]]
        if changed:
            self.worked_in_place[n] = changed
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
            at = result.untyped_storage().data_ptr()
            same = [s for s, x in given.items() if x.untyped_storage().data_ptr() == at]
            self.shared[n] = self.shared[same[0]] if same else []
            self.shared[n].append(n)
            if self.keep:
                # a copy: a later layer may work in place
                self.tensors[n.name] = result.clone()
        return result


def record(module: fx.GraphModule, example_input: Tensor) -> dict[str, Tensor]:
    """What every node of a traced model computes on an example, by the nodes' names."""
    recorder = _Recorder(module, keep=True)
    recorder.run_on(on_device_of(module, example_input))
    return recorder.tensors


_ADDITIONS = (torch.add, operator.add, operator.iadd, "add", "add_")
_INSTEAD = {
    "relu": "the layer torch.nn.ReLU",
    "prelu": "the layer torch.nn.PReLU",
    **dict.fromkeys(
        (
            "elu",
            "gelu",
            "hardswish",
            "hardtanh",
            "leaky_relu",
            "mish",
            "relu6",
            "selu",
            "silu",
            "sigmoid",
            "softplus",
            "tanh",
            "clamp",
            "clip",
        ),
        "the layer torch.nn.PReLU, torch.nn.ReLU or signbit.nn.RPReLU",
    ),
    "sub": "the addition of two maps; a batch norm's weight can hold the minus",
    "neg": "the layer torch.nn.BatchNorm2d, whose weight can hold the minus",
    **dict.fromkeys(
        ("mul", "div", "truediv"),
        "the layer torch.nn.BatchNorm2d for a factor a channel; two maps can only be added",
    ),
    **dict.fromkeys(
        ("cat", "concat", "concatenate", "stack"),
        "the addition of two maps of equal shape, x + y",
    ),
    **dict.fromkeys(
        ("interpolate", "upsample", "pixel_shuffle"),
        "maps of one size, or resize the image before the model",
    ),
    **dict.fromkeys(
        ("permute", "transpose", "movedim", "contiguous", "to", "float"),
        "example inputs that are float32 [N, C, H, W] already, and leave it out",
    ),
    **dict.fromkeys(
        ("getitem", "chunk", "split"),
        "one layer for each part, with that part's channels as its outputs",
    ),
    "max_pool2d": "the layer torch.nn.MaxPool2d",
    "avg_pool2d": "the layer torch.nn.AvgPool2d",
    "adaptive_avg_pool2d": "the layer torch.nn.AdaptiveAvgPool2d(1)",
    "mean": "the layer torch.nn.AdaptiveAvgPool2d(1)",
    "pad": "the padding of the layer behind it",
    "softmax": "it outside of the model, on the program's outputs",
    "log_softmax": "it outside of the model, on the program's outputs",
    "squeeze": "torch.flatten(x, 1)",
    "view": "torch.flatten(x, 1)",
    "reshape": "torch.flatten(x, 1)",
    "sign": "the layer signbit.nn.Sign",
    "conv2d": "the layer signbit.nn.BinaryConv2d (after a Sign) or signbit.nn.QuantConv2d",
    "linear": "the layer signbit.nn.BinaryLinear (after a Sign) or signbit.nn.QuantLinear",
    "batch_norm": "the layer torch.nn.BatchNorm2d",
    "dropout": "the layer torch.nn.Dropout",
}
_CALLS = "x + y of two maps of equal shape and torch.flatten(x, 1) are all that can be called"


def _way_out(name: str) -> str:
    """What to write instead of a call of the function `name`."""
    if name.strip("_") in ("add", "iadd"):
        return f"{_CALLS}; a torch.nn.BatchNorm2d adds a number a channel"
    use = _INSTEAD.get(name.strip("_"))
    return f"use {use}" if use else f"{_CALLS}; build the rest from the layers {known_layers()}"


class _Builder:
    """Turns a traced model into a graph, node by node."""

    def __init__(self, traced: fx.GraphModule, model: nn.Module, example: Tensor):
        self.traced = traced
        self.model = model
        self.problems: list[Problem] = []
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.names: set[str] = set()
        recorder = _Recorder(traced)
        self.stopped: Exception | None = None
        try:
            recorder.run_on(on_device_of(model, example))
        except Exception as error:  # whatever a model's own forward raises
            self.stopped = error
        self.shapes = recorder.shapes
        self.recorder = recorder
        # What a traced node stands for by now: another value than its own once a later layer has
        # worked on its tensor in place, or none where that value has no name.
        self.current: dict[fx.Node, Value | None] = {}

    def capture(self) -> Capture:
        graph = Graph(self.nodes, None, [], [])
        for fx_node in self.traced.graph.nodes:
            if fx_node.op == "placeholder":
                self._input(graph, fx_node)
            elif fx_node.op == "output":
                self._outputs(graph, fx_node)
            elif fx_node.op != "call_module" and fx_node not in self.shapes:
                continue  # a size, or what the run did not reach
            elif fx_node.op == "call_module":
                self._module(fx_node)
            else:
                self._function(fx_node)
            self._follow_in_place(fx_node)
        if self.stopped is not None:
            reason = str(self.stopped).splitlines()[0] if str(self.stopped) else ""
            reason = f"it fails on the example: {type(self.stopped).__name__}: {reason}"
            self.problems.insert(0, Problem("", type(self.model).__name__, reason))
        return Capture(graph, self.problems, self.traced, self.values, self.model)

    # --- pieces ---

    def _input(self, graph: Graph, fx_node: fx.Node) -> None:
        if graph.input is None:
            graph.input = self._value(fx_node, "input", Type.F32)
        elif fx_node in self.shapes:
            self._refuse("", self.model, "it takes several inputs: a program has one")

    def _outputs(self, graph: Graph, fx_node: fx.Node) -> None:
        found = fx_node.args[0]
        found = list(found) if isinstance(found, tuple | list) else [found]
        for item in found:
            value = self._read(item, "", self.model) if isinstance(item, fx.Node) else None
            if value is None:
                if self.stopped is None:
                    self._refuse("", self.model, "it must return a tensor or a tuple of tensors")
                return
            graph.outputs.append(value)
            graph.flat_outputs.append(len(self.shapes[item]) == 2)

    def _module(self, fx_node: fx.Node) -> None:
        path = str(fx_node.target)
        module = self.traced.get_submodule(path)
        layer = read_layer(module)
        inputs = self._inputs(fx_node, path, module)
        binary = layer.op in ("binary_conv2d", "binary_linear")
        if binary and inputs and inputs[0].type != Type.B1:
            layer.refused.append(
                "its input is real-valued: put signbit.nn.Sign or signbit.nn.RSign before it"
            )
        if layer.op.endswith("linear") and len(self._shape_of_input(fx_node)) == 4:
            layer.refused.append(
                "it reads [N, C, H, W] and would work along W: put torch.nn.Flatten before it"
            )
        for reason in layer.refused:
            self._refuse(path, module, reason)
        self._append(fx_node, path, layer, inputs)

    def _function(self, fx_node: fx.Node) -> None:
        name = getattr(fx_node.target, "__name__", str(fx_node.target))
        path, owner = self._owner(fx_node)
        target = fx_node.target
        layer = None
        if target in _ADDITIONS and self._is_plain_addition(fx_node):
            layer = Layer("add")
        elif target in (torch.flatten, "flatten") and self._is_plain_flatten(fx_node):
            layer = Layer("flatten")
        if layer is None:
            reason = f"it calls {name}, which the compiler does not know: {_way_out(name)}"
            if name.strip("_") in ("add", "iadd", "flatten"):
                reason = (
                    f"it calls {name} in a way that the compiler does not know: {_way_out(name)}"
                )
            self._refuse(path, owner, reason)
            layer = Layer("unsupported")
        self._append(
            fx_node, f"{path}.{name}".lstrip("."), layer, self._inputs(fx_node, path, owner)
        )

    def _is_plain_addition(self, fx_node: fx.Node) -> bool:
        shapes = [self.shapes.get(a) for a in fx_node.args if isinstance(a, fx.Node)]
        return (
            len(shapes) == 2 == len(fx_node.args) and shapes[0] == shapes[1] and not fx_node.kwargs
        )

    def _is_plain_flatten(self, fx_node: fx.Node) -> bool:
        start, end = ([*fx_node.args[1:], None, None])[:2]
        start = fx_node.kwargs.get("start_dim", start)
        end = fx_node.kwargs.get("end_dim", end)
        return start == 1 and end in (None, -1, 3)

    def _owner(self, fx_node: fx.Node) -> tuple[str, nn.Module]:
        """The innermost module whose forward makes this call."""
        path = next(reversed(fx_node.meta.get("nn_module_stack") or {"": None}))
        return path, self.model.get_submodule(path)

    def _shape_of_input(self, fx_node: fx.Node) -> tuple[int, ...]:
        sources = [self.shapes.get(source, ()) for source in fx_node.all_input_nodes]
        return sources[0] if sources else ()

    def _inputs(self, fx_node: fx.Node, path: str, owner: nn.Module) -> list[Value]:
        inputs = []
        for source in fx_node.all_input_nodes:
            value = self._read(source, path, owner)
            if value is not None:
                inputs.append(value)
            elif source.op == "get_attr":
                self._refuse(path, owner, f"it uses the tensor {source.target} outside of a layer")
        if len(fx_node.args) == 2 and fx_node.args[0] is fx_node.args[1]:
            inputs *= 2  # x + x
        return inputs

    def _read(self, source: fx.Node, path: str, owner: nn.Module) -> Value | None:
        """What `source` stands for where it is read; refuses the reader if that has no name."""
        value = self.current.get(source, self.values.get(source.name))
        if source in self.current and value is None:
            self._refuse(
                path,
                owner,
                f"it reads a view of {source.name}, on which another layer has worked in place: "
                "write that one out of place (inplace=False, x = x + y)",
            )
            return self.values.get(source.name)
        return value

    def _follow_in_place(self, fx_node: fx.Node) -> None:
        """A layer that works in place changes all that lies in its input's memory."""
        result = self.values.get(fx_node.name)
        for changed in self.recorder.worked_in_place.get(fx_node, []):
            for other in self.recorder.shared[changed]:
                if other is fx_node or other.name not in self.values:
                    continue
                known = (
                    fx_node in self.recorder.shared[changed]
                    and self.shapes[other] == self.shapes[fx_node]
                )
                self.current[other] = result if known else None

    def _append(self, fx_node: fx.Node, path: str, layer: Layer, inputs: list[Value]) -> None:
        if fx_node not in self.shapes:
            return
        kind = output_type(layer.op, inputs)
        value = self._value(fx_node, path, kind)
        if layer.op == "prelu":
            layer.params["slope"] = layer.params["slope"].repeat(
                value.channels // layer.params["slope"].size
            )
        self.nodes.append(Node(layer.op, path, inputs, [value], layer.attrs, layer.params))

    def _value(self, fx_node: fx.Node, path: str, kind: Type) -> Value:
        shape = self.shapes[fx_node]
        if len(shape) not in (2, 4):
            path_, owner = self._owner(fx_node)
            self._refuse(
                path if fx_node.op == "call_module" else path_,
                owner,
                f"it gives a tensor of {len(shape)} dimensions; [N, C, H, W] and [N, C] are known",
            )
        value = Value(unique(path, self.names), kind, feature_shape(shape))
        self.values[fx_node.name] = value
        return value

    def _refuse(self, path: str, module: nn.Module, reason: str) -> None:
        problem = Problem(path, type(module).__name__, reason)
        if problem not in self.problems:
            self.problems.append(problem)


def output_type(op: str, inputs: list[Value]) -> Type:
    """Type of what a captured operation gives: bits behind a sign, else real numbers."""
    if op == "sign":
        return Type.B1
    if op in ("max_pool", "flatten", "identity") and inputs:
        return inputs[0].type
    return Type.F32


def feature_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) of a tensor with a batch dimension; what has no H or W gets 1."""
    return (*shape[1:4], 1, 1, 1)[:3]


def unique(name: str, taken: set[str]) -> str:
    """`name`, or `name` with a number behind it, not in `taken`; adds it there."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}#{count}"
    taken.add(candidate)
    return candidate


def _layers(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every layer with its path; what layers are made of is theirs alone."""
    children = dict(module.named_children())
    if is_leaf(module) or not children:
        yield path, module
        return
    for name, child in children.items():
        yield from _layers(child, f"{path}.{name}".lstrip("."))


def _capture_by_hooks(
    model: nn.Module, example: Tensor, where: tuple[str, nn.Module], error: Exception
) -> Capture:
    """The layers in the order of their calls, for a model that cannot be traced."""
    path, module = where
    text = str(error).splitlines()[0] if str(error) else ""
    reason = (
        f"its forward cannot be traced ({type(error).__name__}: {text}): keep Python control flow "
        "and conversions that depend on the data out of forward"
    )
    problems = [Problem(path, type(module).__name__, reason)]
    graph = Graph([], Value("input", Type.F32, feature_shape(tuple(example.shape))), [], [])
    names: set[str] = set()
    seen: list[tuple[Tensor, Value]] = [(example, graph.input)]

    def hook(path: str, module: nn.Module, inputs: tuple, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        layer = read_layer(module)
        problems.extend(Problem(path, type(module).__name__, reason) for reason in layer.refused)
        sources = [value for tensor, value in seen if any(tensor is item for item in inputs)]
        kind = output_type(layer.op, sources)
        value = Value(unique(path, names), kind, feature_shape(tuple(output.shape)))
        seen.append((output, value))
        graph.nodes.append(Node(layer.op, path, sources, [value], layer.attrs, layer.params))

    handles = [
        module.register_forward_hook(lambda m, i, o, path=path: hook(path, m, i, o))
        for path, module in _layers(model)
    ]
    try:
        model(on_device_of(model, example).clone())
    except Exception as failure:  # whatever a model's own forward raises
        problems.insert(0, Problem("", type(model).__name__, f"it fails on the example: {failure}"))
    finally:
        for handle in handles:
            handle.remove()
    return Capture(graph, list(dict.fromkeys(problems)))
