"""Capture: a PyTorch model becomes a graph with one node a layer.

The model is traced with `torch.fx`, the project's layers and PyTorch's own being leaves, and run
on the example for its shapes. Everything that the compiler refuses is found in that one walk and
reported together; nothing is left to run in real numbers behind the user's back. Where calls read
sizes, or move pixels, further walks over images of other sizes show that they mean the same there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, fx, nn

from signbit.compiler.functions import Call, CallError, read_call
from signbit.compiler.ir import Graph, Node, Type, Value
from signbit.compiler.layers import (
    MOVING,
    REAL,
    TRAINED,
    Layer,
    has_hooks,
    is_leaf,
    read_layer,
    resize,
)
from signbit.compiler.movement import CONSTANT, MOVES, UNKNOWN, Movement, is_sizeless, reach
from signbit.compiler.tracing import Extent, Recorder, Tracer, innermost, on_device_of
from signbit.compiler.vectors import lost_sizes
from signbit.errors import CompileError
from signbit.nn.modes import evaluating

_IMAGES = 2  # of the example: shapes need no more, and a model must take any number
_FAR = 4096  # rows or columns of an image that shows what a call does beyond the numbers it names
_MANY = 1 << 20  # pixels of such an image


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
        windows: the poolings whose window follows the side of a square map (`Layer.whole`).
    """

    graph: Graph
    problems: list[Problem] = field(default_factory=list)
    module: fx.GraphModule | None = None
    values: dict[str, Value] = field(default_factory=dict)
    model: nn.Module | None = None
    windows: set[Node] = field(default_factory=set)


def capture(model: nn.Module, example_input: Tensor, real_layers: bool = False) -> Capture:
    """Capture `model`, evaluated on `example_input` [N, C, H, W].

    With `real_layers`, convolutions and linear layers may have real-valued weights and inputs, for
    the lowering to integers. Raises CompileError naming every layer that the compiler refuses, or
    the parameter or input that is not finite.
    """
    check_arguments(model, example_input)
    check_finite(model, example_input)
    captured = capture_leniently(model, example_input, real_layers)
    if captured.problems:
        count = len(captured.problems)
        head = (
            "the model cannot be compiled" if count == 1 else f"{count} layers cannot be compiled"
        )
        raise CompileError("\n  ".join([head + ":", *map(str, captured.problems)]))
    return captured


def capture_leniently(
    model: nn.Module, example_input: Tensor, real_layers: bool = False
) -> Capture:
    """Capture as much of `model` as can be, with a list of all that the compiler refuses.

    `real_layers` as for `capture`.
    Raises CompileError only for an example that is not [N, C, H, W], or no module at all.
    """
    check_arguments(model, example_input)
    with evaluating(model):
        tracer = Tracer()
        try:
            traced = fx.GraphModule(model, tracer.trace(model))
        except Exception as error:  # whatever a model's own forward raises on symbolic values
            return _capture_by_hooks(model, example_input, tracer.where(model), error)
        example = example_input[:_IMAGES]
        builder = _Builder(traced, model, example, real_layers=real_layers)
        captured = builder.capture()
        if not captured.problems and builder.depends_on_size():
            for shape in _other_shapes(tuple(example_input.shape), builder.reach()):
                zeros = example_input.new_zeros(shape)
                other = _Builder(traced, model, zeros, probing=True, real_layers=real_layers)
                captured.problems += _differences(captured, other.capture())
                if captured.problems:
                    break
        if not captured.problems:
            captured.problems += _lost_sizes(captured)
        return captured


def check_arguments(model: nn.Module, example_input: Tensor) -> None:
    """Raise CompileError unless there are a PyTorch module and an example [N, C, H, W]."""
    if not isinstance(model, nn.Module):
        raise CompileError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise CompileError(
                f"{path or 'the model'} is TorchScript, which cannot be traced: compile the module "
                "that it was made from"
            )
    if not isinstance(example_input, Tensor) or example_input.dim() != 4:
        shape = getattr(example_input, "shape", type(example_input).__name__)
        raise CompileError(f"example_input must be a tensor [N, C, H, W], got {shape}")
    if not example_input.numel():
        raise CompileError(
            f"example_input needs at least one image of at least one pixel, got "
            f"{list(example_input.shape)}"
        )


def check_finite(model: nn.Module, example_input: Tensor) -> None:
    """Raise CompileError, naming what is at fault, for values that are not finite."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CompileError(f"{name} holds NaN or infinity: train again, or load good weights")
    if isinstance(example_input, Tensor) and not torch.isfinite(example_input).all():
        raise CompileError("example_input holds NaN or infinity")


class _Builder:
    """Turns a traced model into a graph, node by node."""

    def __init__(
        self,
        traced: fx.GraphModule,
        model: nn.Module,
        example: Tensor,
        probing: bool = False,
        real_layers: bool = False,
    ):
        self.traced = traced
        self.real_layers = real_layers
        self.model = model
        self.problems: list[Problem] = []
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.names: set[str] = set()
        self.example_shape = tuple(example.shape)
        recorder = Recorder(traced)
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
        # Calls that only move data become layers where their result is read: until then, where
        # each number of theirs comes from, or None where that is not known.
        self.movement = Movement()
        self.moved: dict[fx.Node, object] = {}
        self.probing = probing  # with an image of another size than the example's
        self.windows: set[Node] = set()

    def capture(self) -> Capture:
        graph = Graph(self.nodes, None, [], [])
        if has_hooks(self.model):
            self._refuse("", self.model, "it has forward hooks, which are no part of its forward")
        for fx_node in self.traced.graph.nodes:
            if fx_node.op == "placeholder":
                self._input(graph, fx_node)
            elif fx_node.op == "output":
                self._outputs(graph, fx_node)
            elif fx_node.op == "call_module":
                self._module(fx_node)
            elif fx_node in self.recorder.constants or fx_node not in self.recorder.shared:
                continue  # a parameter, a size, or what the run did not reach
            else:
                self._function(fx_node)
            self._follow_in_place(fx_node)
        if graph.input is None:
            self._refuse("", self.model, "its forward takes no images")
            graph.input = Value("input", Type.F32, feature_shape(self.example_shape))
        if self.stopped is not None:
            reason = str(self.stopped).splitlines()[0] if str(self.stopped) else ""
            reason = f"it fails on the example: {type(self.stopped).__name__}: {reason}"
            self.problems.insert(0, Problem("", type(self.model).__name__, reason))
        return Capture(graph, self.problems, self.traced, self.values, self.model, self.windows)

    def depends_on_size(self) -> bool:
        """Whether calls may do something else with images of another size."""
        readers = {user for size in self.recorder.sizes for user in size.users}
        others = readers - self.recorder.sizes.keys() - self.moved.keys()
        return bool(others) or not all(map(self._is_sizeless, self.moved))

    def reach(self) -> tuple[int, int]:
        """By how much images must be higher and wider for a map to go beyond all that calls name.

        That is twice their number where the calls name none.
        """
        times = [2, 2]
        for fx_node in self.moved:
            named = reach(_name(fx_node), fx_node.args, fx_node.kwargs)
            for at, length in enumerate(self._shape_of_input(fx_node)[-2:]):
                times[at] = max(times[at], named // length + 1)
        return times[0], times[1]

    def _is_sizeless(self, fx_node: fx.Node) -> bool:
        if fx_node.args and fx_node.args[0] in self.recorder.tuples:
            return True  # one of several maps
        if fx_node.op != "call_module":
            if _name(fx_node) in ("view", "reshape") and self._is_flattening(fx_node):
                return True
            if not self.recorder.sizes.keys().isdisjoint(fx_node.all_input_nodes):
                return False
            rank = len(self._shape_of_input(fx_node))
            return bool(rank) and is_sizeless(_name(fx_node), fx_node.args, fx_node.kwargs, rank)
        module = self.traced.get_submodule(str(fx_node.target))
        return not isinstance(module, nn.Unflatten)

    def _is_flattening(self, fx_node: fx.Node) -> bool:
        """Whether a call is `x.view(x.size(0), -1)`."""
        args = fx.node.map_arg(fx_node.args, self._argument)
        shape = args[1] if len(args) == 2 and isinstance(args[1], tuple | list) else args[1:]
        if len(shape) != 2 or shape[1] != -1 or not isinstance(shape[0], Extent):
            return False
        return shape[0].source is not None and (shape[0].axis, shape[0].factor) == (0, 1)

    # --- pieces ---

    def _input(self, graph: Graph, fx_node: fx.Node) -> None:
        if graph.input is not None:
            self._refuse("", self.model, "it takes several inputs: a program has one")
        elif fx_node in self.shapes:
            graph.input = self._value(fx_node, "input", Type.F32)

    def _outputs(self, graph: Graph, fx_node: fx.Node) -> None:
        found = fx_node.args[0]
        found = list(found) if isinstance(found, tuple | list) else [found]
        for item in found:
            value = self._read(item, "", self.model) if isinstance(item, fx.Node) else None
            if value is None or item not in self.shapes:
                if self.stopped is None:
                    self._refuse("", self.model, "it must return a tensor or a tuple of tensors")
                return
            graph.outputs.append(value)
            graph.flat_outputs.append(len(self.shapes[item]) == 2)

    def _module(self, fx_node: fx.Node) -> None:
        path = str(fx_node.target)
        module = self.traced.get_submodule(path)
        layer = read_layer(module)
        if isinstance(module, MOVING) and not layer.refused:
            self._move(fx_node, module, path, module)
            return
        inputs = self._inputs(fx_node.all_input_nodes, path, module)
        binary = layer.op in ("binary_conv2d", "binary_linear")
        if binary and inputs and inputs[0].type != Type.B1 and not self.real_layers:
            reason = "its input is real-valued: put signbit.nn.Sign or signbit.nn.RSign before it"
            # to_8bit leaves binary linear layers as they are
            layer.refused.append(f"{reason}; {TRAINED}" if layer.op == "binary_conv2d" else reason)
        if layer.op.endswith("linear") and len(self._shape_of_input(fx_node)) == 4:
            layer.refused.append(
                "it reads [N, C, H, W] and would work along W: put torch.nn.Flatten before it"
            )
        for reason in layer.refused:
            if not (self.real_layers and reason.startswith(REAL)):
                self._refuse(path, module, reason)
        self._append(fx_node, path, layer, inputs)

    def _function(self, fx_node: fx.Node) -> None:
        name = _name(fx_node)
        owner_path, owner = self._owner(fx_node)
        path = f"{owner_path}.{name}".lstrip(".")
        if name == "squeeze" and len(fx_node.args) + len(fx_node.kwargs) == 1:
            self._refuse(
                owner_path,
                owner,
                "it calls squeeze without a dimension, which takes the batch of one image away "
                "too: use flatten(1), or squeeze(3).squeeze(2)",
            )
        if name in MOVES:
            call = fx_node.target
            if fx_node.op == "call_method":
                call = functools.partial(_call_method, str(fx_node.target))
            self._move(fx_node, call, owner_path, owner)
            return
        args = fx.node.map_arg(fx_node.args, self._argument)
        kwargs = fx.node.map_arg(fx_node.kwargs, self._argument)
        try:
            call = Call(name, args, kwargs, self.shapes, self._flattened)
            layer, sources = read_call(call)
        except CallError as refused:
            layer, sources = Layer("unsupported", refused=[str(refused)]), fx_node.all_input_nodes
        for reason in layer.refused:
            self._refuse(owner_path, owner, reason)
        if layer.op in ("add", "mul") and not layer.refused:
            pixels = [self._one_pixel(source, path) for source in sources]
            if any(a is b for a, b in zip(sources, pixels, strict=True)):
                sources = pixels  # another map gives the result its size
        self._append(fx_node, path, layer, self._inputs(sources, owner_path, owner))
        if layer.whole:
            self._note_window(fx_node, owner_path, owner)

    def _note_window(self, fx_node: fx.Node, path: str, owner: nn.Module) -> None:
        """A pooling window whose rows and columns are one side of a map: the map must be square."""
        height, width = self._shape_of_input(fx_node)[2:]
        if fx_node in self.shapes:
            self.windows.add(self.nodes[-1])
        if height != width and not self.probing:
            self._refuse(
                path,
                owner,
                f"it calls {_name(fx_node)}: its window is one side of a map of {height}x{width}: "
                "use x.shape[2:], or x.mean((2, 3)) or x.amax((2, 3))",
            )

    def _argument(self, source: fx.Node) -> object:
        """A call's argument: a map stays a node, constants and sizes are what they are."""
        recorder = self.recorder
        return recorder.sizes.get(source, recorder.constants.get(source, source))

    def _owner(self, fx_node: fx.Node) -> tuple[str, nn.Module]:
        """The innermost module whose forward makes this call."""
        path = innermost(fx_node.meta.get("nn_module_stack") or {})
        return path, self.model.get_submodule(path)

    def _shape_of_input(self, fx_node: fx.Node) -> tuple[int, ...]:
        sources = [self.shapes.get(source, ()) for source in fx_node.all_input_nodes]
        return sources[0] if sources else ()

    def _inputs(
        self, sources: Iterable[fx.Node | Value], path: str, owner: nn.Module
    ) -> list[Value]:
        inputs = []
        for source in sources:
            value = source if isinstance(source, Value) else self._read(source, path, owner)
            if value is not None:
                inputs.append(value)
        return inputs

    def _read(self, source: fx.Node, path: str, owner: nn.Module) -> Value | None:
        """What `source` stands for where it is read; refuses the reader if that has no name."""
        if source in self.current and self.current[source] is None:
            self._refuse(
                path,
                owner,
                f"it reads a view of {source.name}, on which another layer has worked in place: "
                "write that one out of place (inplace=False, x = x + y)",
            )
            return self.values.get(source.name)
        if source in self.current:
            return self.current[source]
        if source in self.moved and source.name not in self.values:
            self._materialise(source)
        return self.values.get(source.name)

    def _follow_in_place(self, fx_node: fx.Node) -> None:
        """A layer that works in place changes all that lies in its input's memory."""
        result = self.values.get(fx_node.name)
        layouts = self.recorder.layouts
        for changed in self.recorder.worked_in_place.get(fx_node, []):
            for other in self.recorder.shared[changed]:
                known_here = other.name in self.values or other in self.moved
                if other is fx_node or not known_here or self._apart(changed, other):
                    continue
                same = fx_node in layouts and layouts.get(other) == layouts[fx_node]
                self.current[other] = result if same else None

    def _apart(self, a: fx.Node, b: fx.Node) -> bool:
        """Whether two moved maps have no number in common."""
        moved = self.moved.get(a), self.moved.get(b)
        return all(isinstance(m, Tensor) for m in moved) and not torch.isin(*moved).any()

    def _append(self, fx_node: fx.Node, path: str, layer: Layer, inputs: list[Value]) -> None:
        if fx_node not in self.shapes:
            return
        if layer.before and inputs:
            value = inputs[-1]
            for part in layer.before:
                value = self._step(part, path, value)
            inputs = [inputs[0], value] if layer.op in ("add", "mul") else [value]
        kind = output_type(layer.op, inputs)
        if layer.op == "resize" and not layer.attrs["mode"]:
            kind = inputs[0].type  # the other is read for its size
        value = self._value(fx_node, path, kind)
        self._node(layer, path, inputs, value)

    def _step(self, layer: Layer, path: str, source: Value) -> Value:
        """One layer more on the way to a call's result."""
        channels, height, width = source.shape
        if layer.op == "channels":
            channels = layer.params["index"].size
        name = unique(f"{path}:{layer.op}", self.names)
        value = Value(name, output_type(layer.op, [source]), (channels, height, width))
        self._node(layer, path, [source], value)
        return value

    def _node(self, layer: Layer, path: str, inputs: list[Value], value: Value) -> None:
        params = layer.params
        if layer.op in ("prelu", "affine", "sign"):
            # one number may serve all channels
            params = {
                name: np.broadcast_to(array, (value.channels,)).copy()
                for name, array in params.items()
            }
        self.nodes.append(Node(layer.op, path, inputs, [value], layer.attrs, params))

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

    # --- calls that only move data ---

    def _move(self, fx_node: fx.Node, call: Callable, path: str, owner: nn.Module) -> None:
        """Move numbers as the call moves data."""

        def numbers(source: fx.Node) -> object:
            if source in self.recorder.sizes:
                return _plain(self.recorder.sizes[source])
            if source in self.recorder.constants:
                return Movement.constant(self.recorder.constants[source], _name(fx_node))
            moved = self.moved.get(source) if source not in self.current else None
            own = _name(source) == "expand_as" or self.movement.is_shuffled(moved)
            if moved is not None and not own:
                return moved
            value = self._read(source, path, owner)
            if value is None or source not in self.shapes:
                raise LookupError(source.name)
            return self.movement.numbers(value, self.shapes[source])

        if fx_node not in self.recorder.shared:
            return  # the run did not reach it
        try:
            args = fx.node.map_arg(fx_node.args, numbers)
            kwargs = fx.node.map_arg(fx_node.kwargs, numbers)
            self.moved[fx_node] = call(*args, **kwargs)
        except Exception:  # what cannot be moved so is refused where it is read
            self.moved[fx_node] = None

    def _materialise(self, fx_node: fx.Node) -> None:
        """Put the layers that move data so into the graph; refuses what is not known."""
        path, owner = self._owner(fx_node)
        is_layer = fx_node.op == "call_module"
        if is_layer:
            path, owner = str(fx_node.target), self.traced.get_submodule(str(fx_node.target))
        numbers = self.moved[fx_node]
        name = path if is_layer else f"{path}.{_name(fx_node)}".lstrip(".")
        repeated = self._repeated(fx_node, path, owner, name)
        if repeated is not None:
            self._append(fx_node, name, resize(None, None, "nearest"), repeated)
            return
        found = self.movement.recognise(numbers) if isinstance(numbers, Tensor) else None
        if found is None:
            what = UNKNOWN
            if isinstance(numbers, Tensor) and Movement.holds_constants(numbers):
                what = CONSTANT
            self._refuse(
                path, owner, f"it {'' if is_layer else f'calls {_name(fx_node)}, which '}{what}"
            )
            sources = self.movement.sources(numbers) if isinstance(numbers, Tensor) else []
            self._append(fx_node, name, Layer("unsupported"), sources)
            return
        inputs, layers = found
        if not layers:
            layers = [Layer("flatten" if len(self.shapes[fx_node]) == 2 else "identity")]
        for layer in layers[:-1]:
            inputs = [self._joined(layer, name, inputs)]
        self._append(fx_node, name, layers[-1], inputs)

    def _joined(self, layer: Layer, path: str, inputs: list[Value]) -> Value:
        _, height, width = inputs[0].shape
        shape = (layer.params["index"].size, height, width)
        value = Value(
            unique(f"{path}:channels", self.names), output_type("channels", inputs), shape
        )
        self._node(layer, path, inputs, value)
        return value

    def _flattened(self, source: fx.Node) -> Value | None:
        numbers = self.moved.get(source)
        known = isinstance(numbers, Tensor) and source not in self.current
        return self.movement.is_flattened(numbers) if known else None

    def _repeated(
        self, fx_node: fx.Node, path: str, owner: nn.Module, name: str
    ) -> list[Value] | None:
        """The pixel that a call repeats over another map, and that map (`gate.expand_as(x)`)."""
        if _name(fx_node) != "expand_as" or not isinstance(fx_node.args[-1], fx.Node):
            return None
        pixel = self._one_pixel(fx_node, name)
        like = self._read(fx_node.args[-1], path, owner)
        return None if pixel is fx_node or like is None else [pixel, like]

    def _one_pixel(self, source: fx.Node | Value, path: str) -> fx.Node | Value:
        """The one pixel that a map repeats (`gate.expand_as(x)`), or the map itself."""
        numbers = self.moved.get(source) if isinstance(source, fx.Node) else None
        if not isinstance(numbers, Tensor) or numbers.dim() != 4 or source in self.current:
            return source
        pixel = numbers[:, :, :1, :1]
        # the example itself may have one pixel
        alike = pixel.shape == numbers.shape and _name(source) != "expand_as"
        if alike or not torch.equal(pixel.expand_as(numbers), numbers):
            return source
        found = self.movement.recognise(pixel)
        if found is None:
            return source
        inputs, layers = found
        return self._joined(layers[0], path, inputs) if layers else inputs[0]


def _name(fx_node: fx.Node) -> str:
    """A call's function or method, as people know it."""
    return getattr(fx_node.target, "__name__", str(fx_node.target))


def _call_method(name: str, x: Tensor, *args: object, **kwargs: object) -> object:
    return getattr(x, name)(*args, **kwargs)


def _plain(size: object) -> object:
    """Sizes as the numbers that they are for the example."""
    if isinstance(size, tuple):
        return tuple(map(_plain, size))
    return size.number if isinstance(size, Extent) else size


def _other_shapes(
    shape: tuple[int, ...], times: tuple[int, int]
) -> Iterator[tuple[int, int, int, int]]:
    """Shapes that show what the example's [N, C, H, W] does not: another number of images, odd
    sizes, other proportions, smaller ones, and images `times` as high or wide, within bounds."""
    n, channels, height, width = shape
    yield 2 if n == 1 else 1, channels, 2 * height, 2 * width
    yield 1, channels, height + 1 + height % 2, width + 3 + width % 2
    yield 1, channels, (height + 1) // 2, (width + 1) // 2
    most = _MANY // (height * width)
    high, wide = min(times[0], _FAR // height, most), min(times[1], _FAR // width, most)
    if high > 2:
        yield 1, channels, high * height, width
    if wide > 2:
        yield 1, channels, height, wide * width


def _differences(captured: Capture, other: Capture) -> list[Problem]:
    """What the model does otherwise with images of another size, as far as it takes them."""
    for a, b in zip(captured.graph.nodes, other.graph.nodes, strict=False):
        sources = [[value.name for value in node.inputs] for node in (a, b)]
        if (a.op, b.op) == ("flatten", "unsupported"):
            sizes = [[value.shape for value in node.inputs] for node in (a, b)]
            if sizes[0] != sizes[1]:
                continue  # a vector of another length: the program will not take that size
        windows = a in captured.windows and b in other.windows
        same = (a.op, a.path) == (b.op, b.path) and (windows or a.attrs == b.attrs)
        if not (same and sources[0] == sources[1] and _same_params(a, b)):
            return [_otherwise(captured.model, a)]
    ends = [(c.graph.flat_outputs, [v.name for v in c.graph.outputs]) for c in (captured, other)]
    if not other.problems and ends[0] != ends[1]:
        reason = "its outputs are others with images of another size"
        return [Problem("", type(captured.model).__name__, reason)]
    return []


def _otherwise(model: nn.Module, node: Node) -> Problem:
    path = node.path.rpartition(".")[0]
    reason = f"its call {node.path} does something else with images of another size"
    return Problem(path, type(model.get_submodule(path)).__name__, reason)


def _same_params(a: Node, b: Node) -> bool:
    """Whether two nodes have the same numbers; one for all channels may stand there more often."""
    for name, array in a.params.items():
        other = b.params.get(name)
        if other is None or array.size == 0:
            return other is not None
        if array.shape == other.shape:
            if not np.array_equal(array, other):
                return False
        elif name == "index" or not (array == other.flat[0]).all() or np.ptp(other) != 0:
            return False
    return a.params.keys() == b.params.keys()


def _lost_sizes(captured: Capture) -> list[Problem]:
    """Vectors that would be several pixels for other images, and nobody would notice."""
    problems = []
    for node, hidden in lost_sizes(captured.graph, captured.windows):
        try:
            path, module = node.path, captured.model.get_submodule(node.path)
        except AttributeError:  # a call's
            path = node.path.rpartition(".")[0]
            module = captured.model.get_submodule(path)
        reason = (
            f"{node.path} makes a vector of a map whose size follows the image's, and behind it "
            f"{hidden} would hide that images of another size do not fit: pool the map before, as "
            "torch.nn.AdaptiveAvgPool2d(1) or x.mean((2, 3)) do, or use a convolution"
        )
        problems.append(Problem(path, type(module).__name__, reason))
    return problems


_KEEP_TYPE = ("max_pool", "flatten", "identity", "channels", "pixel_shuffle")


def output_type(op: str, inputs: list[Value]) -> Type:
    """Type of what a captured operation gives: bits behind a sign, else real numbers."""
    if op == "sign":
        return Type.B1
    if op in _KEEP_TYPE and inputs and all(value.type == Type.B1 for value in inputs):
        return Type.B1
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
        layer = layers[module]
        problems.extend(Problem(path, type(module).__name__, reason) for reason in layer.refused)
        sources = [value for tensor, value in seen if any(tensor is item for item in inputs)]
        kind = output_type(layer.op, sources)
        value = Value(unique(path, names), kind, feature_shape(tuple(output.shape)))
        seen.append((output, value))
        graph.nodes.append(Node(layer.op, path, sources, [value], layer.attrs, layer.params))

    # read before they have hooks of ours
    layers = {module: read_layer(module) for _, module in _layers(model)}
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
