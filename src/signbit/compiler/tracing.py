"""Tracing: the calls of a model's forward, and what each of them computes on an example."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from signbit.compiler.layers import is_leaf


def on_device_of(model: nn.Module, x: Tensor) -> Tensor:
    """`x` where the model's parameters are."""
    parameter = next(model.parameters(), None)
    return x if parameter is None else x.to(parameter.device)


class _Proxy(fx.Proxy):
    """A symbolic value on which `x += y` stays what it is, instead of becoming `x = x + y`."""

    def __iadd__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.itruediv, other)

    def _in_place(self, function: object, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})


class Tracer(fx.Tracer):
    """Traces a model whose leaves are PyTorch's layers and the project's."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_args_for_root(
        self, root_fn: Callable, is_module: bool, concrete_args: object = None
    ) -> tuple[Callable, list[object]]:
        """Placeholders for what a call with images alone gives; the others have their defaults."""
        kinds = inspect.Parameter
        given = []
        for parameter in list(inspect.signature(root_fn).parameters.values())[1:]:
            positional = parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
            images = not given and (positional or parameter.kind == kinds.VAR_POSITIONAL)
            if images or (positional and parameter.default is kinds.empty):
                given.append(self.create_proxy("placeholder", parameter.name, (), {}))
        return root_fn, [self.root, *given]

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return is_leaf(module) or super().is_leaf_module(module, path)

    def where(self, model: nn.Module) -> tuple[str, nn.Module]:
        """The module in whose forward tracing stopped."""
        path = innermost(self.module_stack)
        return path, model.get_submodule(path)

    def iter(self, obj: fx.Proxy) -> Iterator[fx.Proxy]:
        """The items of a part of a size, as in `[2 * s for s in x.shape[2:]]`."""
        node = obj.node
        if node.target is operator.getitem and isinstance(node.args[1], slice):
            source = node.args[0]
            attribute = source.target is getattr and source.args[1] == "shape"
            if attribute or (source.target == "size" and len(source.args) == 1):
                return iter([obj[i] for i in range(len(range(4)[node.args[1]]))])  # [N, C, H, W]
        return super().iter(obj)


def innermost(stack: Mapping[str, tuple[str, type]]) -> str:
    """Path of the last module of a stack, whose keys may have the number of the call in them."""
    return next(reversed(stack.values()), ("", None))[0]


@dataclass(frozen=True)
class Extent:
    """A number that the model reads from a map's size.

    Attributes:
        number: what it is for the example.
        source: whose size it is, or None where the model computed it from sizes.
        axis: 0 to 3, of [N, C, H, W].
        factor: how many times that size it is.
    """

    number: int
    source: fx.Node | None = None
    axis: int = 0
    factor: int = 1


def _extents(node: fx.Node, result: object, known: dict[fx.Node, object], rank: int) -> object:
    """What a call that gives no tensors says of sizes: an `Extent`, or a tuple of them.

    `known`: what the calls before it said; `rank`: the dimensions of its first argument.
    """
    first = node.args[0] if node.args else None
    is_shape = node.target is getattr and node.args[1:] == ("shape",)
    if is_shape or (node.target == "size" and len(node.args) == 1 and not node.kwargs):
        return tuple(Extent(int(n), first, axis) for axis, n in enumerate(result))
    if node.target == "size" and len(node.args) == 2 and isinstance(node.args[1], int):
        return Extent(int(result), first, node.args[1] % rank)
    if node.target is operator.getitem and isinstance(known.get(first), tuple):
        index = node.args[1]
        if isinstance(index, int | slice) and not _has_nodes(index):
            return known[first][index]
    if node.target in (operator.mul, operator.imul) and isinstance(result, int):
        for a, b in (node.args, node.args[::-1]):
            extent = known.get(a) if isinstance(a, fx.Node) else None
            if isinstance(extent, Extent) and extent.source is not None and isinstance(b, int):
                return Extent(result, extent.source, extent.axis, extent.factor * b)
    if isinstance(result, tuple | list):
        return tuple(Extent(n) if isinstance(n, int) else n for n in result)
    return Extent(result) if isinstance(result, int) else result


def _has_nodes(index: object) -> bool:
    parts = (index.start, index.stop, index.step) if isinstance(index, slice) else (index,)
    return any(isinstance(part, fx.Node) for part in parts)


@dataclass(frozen=True)
class _Layout:
    """Which memory a tensor sees."""

    storage: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, x: Tensor) -> _Layout:
        at = x.untyped_storage().data_ptr()
        return cls(at, x.storage_offset(), tuple(x.shape), x.stride())


def _tensors(result: object) -> list[Tensor]:
    """A result's tensors: itself, or those of a tuple."""
    found = result if isinstance(result, tuple | list) else [result]
    return [x for x in found if isinstance(x, Tensor)]


class Recorder(fx.Interpreter):
    """Runs the traced model and keeps every tensor that it computes, or only their shapes.

    Attributes:
        tensors: what each node computes, by its name; empty unless asked for.
        shapes: the tensors' shapes.
        tuples: the nodes that give several tensors.
        sizes: what the nodes that give no tensor say of sizes: `Extent`s, tuples of them, numbers.
        constants: the tensors that do not depend on the input.
        layouts: the memory that each tensor sees.
        shared: for each node, all those whose tensors lie in the same memory, itself among them.
        worked_in_place: for each node that changes a tensor that it is given, those tensors' nodes.
    """

    def __init__(self, module: fx.GraphModule, keep: bool = False):
        super().__init__(module)
        self.keep = keep
        self.tensors: dict[str, Tensor] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.tuples: set[fx.Node] = set()
        self.sizes: dict[fx.Node, object] = {}
        self.constants: dict[fx.Node, Tensor] = {}
        self.layouts: dict[fx.Node, _Layout] = {}
        self.shared: dict[fx.Node, list[fx.Node]] = {}
        self.worked_in_place: dict[fx.Node, list[fx.Node]] = {}

    def run_on(self, x: Tensor) -> None:
        """Run the model on a copy of `x`: its first layer may work in place."""
        # Tensors of inference mode do not count how often they are written.
        with torch.inference_mode(False), torch.no_grad():
            self.run(x.clone())

    def run_node(self, n: fx.Node) -> object:
        given = {source: _tensors(self.env[source]) for source in n.all_input_nodes}
        versions = {source: sum(x._version for x in xs) for source, xs in given.items()}
        result = super().run_node(n)
        changed = [s for s, xs in given.items() if sum(x._version for x in xs) != versions[s]]
        if changed:
            self.worked_in_place[n] = changed
        if isinstance(result, Tensor):
            self._note_tensor(n, result)
        found = _tensors(result)
        if found:
            storages = {x.untyped_storage().data_ptr() for x in found}
            same = [
                source
                for source, xs in given.items()
                if any(x.untyped_storage().data_ptr() in storages for x in xs)
            ]
            self.shared[n] = self.shared[same[0]] if same else []
            self.shared[n].append(n)
            if not isinstance(result, Tensor):
                self.tuples.add(n)
        elif n.op in ("call_function", "call_method"):
            rank = len(self.shapes.get(n.args[0], ())) if n.args else 0
            self.sizes[n] = _extents(n, result, self.sizes, rank)
        return result

    def _note_tensor(self, n: fx.Node, result: Tensor) -> None:
        self.shapes[n] = tuple(result.shape)
        self.layouts[n] = _Layout.of(result)
        sources = [source for source in n.all_input_nodes if source not in self.sizes]
        if n.op == "get_attr" or (
            n.op.startswith("call") and sources and all(s in self.constants for s in sources)
        ):
            self.constants[n] = result.detach().clone()
        if self.keep:
            # a copy: a later layer may work in place
            self.tensors[n.name] = result.clone()


def record(module: fx.GraphModule, example_input: Tensor) -> dict[str, Tensor]:
    """What every node of a traced model computes on an example, by the nodes' names."""
    recorder = Recorder(module, keep=True)
    recorder.run_on(on_device_of(module, example_input))
    return recorder.tensors
